"""`tuneful label`: judgments, in a store or in files."""

from __future__ import annotations

import typer

from tuneful.cli.label import create, machines, people, projects, results, stores

app = typer.Typer(help="Judgments: collect them in a store, find their consensus, export pairs.", no_args_is_help=True)
app.command("create")(create.create_command)
app.command("import")(projects.import_command)
app.command("ai")(machines.ai_command)
app.command("status")(projects.status_command)
app.command("gold")(projects.gold_command)
app.command("token")(people.token_command)
app.command("invite")(people.invite_command)
app.command("forget")(people.forget_command)
app.command("backup")(stores.backup_command)
app.command("restore")(stores.restore_command)
app.command("trail")(stores.trail_command)
app.command("simulate")(machines.simulate_command)
app.command("consensus")(results.consensus_command)
app.command("winrate")(results.winrate_command)
app.command("export")(results.export_command)

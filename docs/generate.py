"""Writes the reference pages that follow from the code: settings of recipes, commands, and routes for programs.

python docs/generate.py writes all three; a test compares them with what this would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from tuneful.cli.main import app
from tuneful.pipeline.recipe import ACTIONS, ALGORITHMS
from tuneful.pipeline.stages import RUNS
from tuneful.rewards.rules import RULES

REFERENCE: Final = Path(__file__).parent / "reference"
MARK: Final = "<!-- Written by docs/generate.py from the docstrings; change those and run it again. -->"

RECIPES: Final = """\
A recipe is a TOML file for [`tuneful run`](commands.md#tuneful-run): a few settings for the whole run, then one
`[[stage]]` table per stage. Stages run in the order in which they stand.

| setting | meaning |
|---|---|
| `seed` | everything random follows from it, in every stage that sets no `seed` of its own; default 0 |
| `held_out` | list of files or data sets for reports alone; rows that share a first user turn with them are left out |
| `splits` | shares of the prompts, which add up to 1; default `{ reward = 0.4, rl = 0.4, dev = 0.1, test = 0.1 }` |
| `rounds` | how often the stages run, each time on what the last time made: [rounds](../how-to/rounds.md); default 1 |

Every stage has a `name` of letters, digits and `_`, which is also the name of its folder, and either
`algorithm = "…"`, which trains something, or `do = "…"`, which does not. Where there are rounds, `again = { … }` holds
what differs in the later ones, and `once = true` keeps a stage out of them. An unknown setting is refused with the
nearest known one. `--set NAME.setting=value` changes one setting of the stage of that name; the value is read as TOML.

A model, a file or a reward that a stage takes in is written as

- `@name`: what the earlier stage of that name made,
- a path, or a Hugging Face hub id for models,
- a data set's name, such as `hh-harmless/train`, looked for in `$TUNEFUL_DATA`, then `../shared/data`, then on the hub,
- `world:thing`, made and not read, such as [`demo:prompts`](../explanation/demo-world.md).

“Default” is the value that stands when the recipe is silent; “required” has none, and “none” means that the setting
is not there."""

COMMANDS: Final = """\
`tuneful COMMAND --help` shows the same on a terminal. A mistake that you can mend is one line on the error stream and
exit status 2; any other exception is a bug of ours and keeps its traceback. Ctrl-C ends with status 130, and the same
command goes on from the last checkpoint."""


REST: Final = """\
What [`tuneful web`](commands.md#tuneful-web) answers to programs, below `/api/v1`; the same as OpenAPI at
`/api/v1/openapi.json`. In Python there is a [client](../how-to/program.md) that knows all of it.

Every request bears `Authorization: Bearer TOKEN`, a token of
[`tuneful label token`](commands.md#tuneful-label-token). It stands for a person, does what that person may do, and of
that what its scopes allow: `label` claims and judges, `read` looks, `lead` fills the holder's own projects and takes
judgments home. Bodies and answers are JSON, bodies of up to 2 MiB.

What is refused changes nothing, and says why in a [Refusal](#refusal):

| status | |
|---|---|
| 400 | what was sent does not fit; the field is named |
| 401 | no token, or one that is unknown or over |
| 403 | the token lacks the scope, or its holder the role; or it is somebody else's item |
| 404 | there is no such thing |
| 409 | the item is not in hand any more, or the id of a judgment stands for another one, or for other words, already |
| 413 | the body is too large; send it in parts |
| 503 | not at this moment: the database is busy, full or away; `retry-after` says after how many seconds again |

After a 503, and where an answer was lost, the same request may be made again: a judgment bears a UUID that the client
made, and is stored once however often it arrives; drafts, items, instructions and skipped items are the same when they
are sent again, and a claim gives the item that is in hand."""

SECTIONS: Final = {"labeling": "To label", "projects": "To lead", "export": "To take home"}


def pages() -> dict[str, str]:
    """The text of each generated page by its name in `docs/reference`."""
    return {"recipes.md": recipes_page(), "commands.md": commands_page(), "rest.md": rest_page()}


def recipes_page() -> str:
    parts = [MARK, "# Recipes", RECIPES]
    nested: dict[str, type] = {}
    for kind in RUNS:
        inputs, config = ALGORITHMS[kind] if kind in ALGORITHMS else (ACTIONS[kind], None)
        opening = f'`algorithm = "{kind}"`' if config else f'`do = "{kind}"`'
        parts += [f"## {kind}", f"{opening}. Leaves {_sentence(RUNS[kind])}"]
        parts += [*(["What it takes in:"] if config else []), _table(inputs, nested)]
        if config:
            parts += ["Settings:", _table(config, nested)]
    for name, cls in nested.items():
        parts += [f"## {name}", _sentence(cls), _table(cls, {})]
    rules = [f"| `{name}` | {_sentence(rule)} |" for name, rule in RULES.items()]
    parts += ["## Rewards by name", "\n".join(["| `reward` | score |", "|---|---|", *rules])]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    parts = [MARK, "# Commands", COMMANDS]
    for name, command in _commands("tuneful", app):
        text, _, example = (inspect.getdoc(command) or "").partition("Example: ")
        parts += [f"## {name}", " ".join(text.split())]
        if example:
            parts.append(f"```console\n$ {' '.join(example.split())}\n```")
        parts.append(_flags(command))
    return "\n\n".join(parts) + "\n"


def rest_page() -> str:
    from tuneful.web.app import create_app

    described = create_app(None).openapi()  # type: ignore[arg-type]
    parts = [MARK, "# REST API", REST]
    for tag, title in SECTIONS.items():
        parts.append(f"## {title}")
        for path, methods in described["paths"].items():
            for method, route in methods.items():
                if route["tags"] == [tag]:
                    parts += [f"### {method.upper()} {path.removeprefix('/api/v1')}", _route(route)]
    parts.append("## Shapes")
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts += [f"### {name}", *_shape(schema)]
    return "\n\n".join(parts) + "\n"


def _route(route: Mapping[str, Any]) -> str:
    """What a route does, what it takes and what it answers."""
    said = [" ".join(route["description"].split()), f"Scope `{route['x-scope']}`."]
    chosen = [given for given in route.get("parameters", ()) if "enum" in given["schema"]]
    said += [f"`{given['name']}` is {_json_type(given['schema'])}." for given in chosen]
    if "requestBody" in route:
        said.append(f"Takes {_json_type(_content(route['requestBody']))}.")
    answer = _content(route["responses"]["200"])
    said.append(f"Answers {_json_type(answer)}." if answer else "Answers lines of JSON.")
    return " ".join(said)


def _content(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a body or of an answer in JSON; {} for one that is not."""
    schema: Mapping[str, Any] = described["content"].get("application/json", {}).get("schema", {})
    return schema


def _shape(schema: Mapping[str, Any]) -> Iterator[str]:
    if "description" in schema:
        yield " ".join(schema["description"].split())
    if not schema.get("properties"):
        return
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else f"`{json.dumps(field.get('default'))}`"
        lines.append(f"| `{name}` | {_json_type(field)} | {default} | {field.get('description', '')} |")
    yield "\n".join(lines)


def _json_type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_json_type, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    inner = schema.get("additionalProperties")
    if schema.get("type") == "array":
        return f"list of {_json_type(schema['items'])}"
    if isinstance(inner, Mapping):
        return f"object of {_json_type(inner)}"
    names = {"integer": "whole number", "boolean": "true or false", "string": "text"}
    return names.get(schema.get("type", ""), schema.get("type", "anything"))


def _table(cls: type, nested: dict[str, type]) -> str:
    """One line per setting, inherited ones last; settings that are tables of their own are added to `nested`."""
    hints, fields = get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    documented: dict[str, tuple[str | None, str]] = {}
    for base in filter(dataclasses.is_dataclass, cls.__mro__):
        documented = documented | {name: told for name, told in _documented(base) if name not in documented}
    assert documented.keys() == fields.keys()
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, (default, meaning) in documented.items():
        made = fields[name].default_factory is not dataclasses.MISSING
        shown = _default("{}" if made else default)
        lines.append(f"| `{name}` | {_type(hints[name], nested)} | {shown} | {meaning} |")
    return "\n".join(lines)


def _documented(cls: type) -> Iterator[tuple[str, tuple[str | None, str]]]:
    """Each field's default as it is written, and its docstring, which Python itself does not keep."""
    source = textwrap.dedent(inspect.getsource(cls))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if ast.unparse(field.annotation).startswith("ClassVar"):  # of the class, and no setting
            continue
        if not isinstance(below, ast.Expr) or not isinstance(below.value, ast.Constant):
            raise ValueError(f"{cls.__name__}.{field.target.id} has no docstring")
        default = ast.get_source_segment(source, field.value) if field.value else None
        yield field.target.id, (default, " ".join(str(below.value.value).split()).replace("|", r"\|"))


def _type(hint: Any, nested: dict[str, type]) -> str:
    """A type in a TOML reader's words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument, nested) for argument in arguments if argument is not type(None))
    if origin is Literal:
        return " or ".join(f'`"{choice}"`' for choice in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0], nested)}"
    if origin is not None and issubclass(origin, Mapping):
        return f"table of {_type(arguments[1], nested)}s"
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        nested[hint.__name__] = hint
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[hint]


def _default(source: str | None) -> str:
    """A default as TOML would write it."""
    if source is None:
        return "required"
    if source == "None":
        return "none"
    name, bracket, inside = source.partition("(")
    if name.isidentifier() and bracket:
        settings = ", ".join(part.replace("=", " = ") for part in inside.removesuffix(")").split(", "))
        source = f"{{ {settings} }}" if settings else "{}"
    if source.startswith("("):
        source = f"[{source[1:-1]}]"
    return f"`{ {'True': 'true', 'False': 'false'}.get(source, source) }`"


def _commands(name: str, group: typer.Typer) -> Iterator[tuple[str, Callable[..., None]]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{name} {command.name}", command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(f"{name} {inner.name}", inner.typer_instance)


def _flags(command: Callable[..., None]) -> str:
    hints = get_type_hints(command, include_extras=True)
    lines = ["| flag | value | default | meaning |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(command).parameters.items():
        if hints[name] is typer.Context:  # what was typed, and nothing to type
            continue
        hint, info = get_args(hints[name])[:2] if get_origin(hints[name]) is Annotated else (hints[name], None)
        flag = f"`{name.upper()}`" if isinstance(info, ArgumentInfo) else f"`--{name.replace('_', '-')}`"
        if isinstance(info, OptionInfo):  # inside Annotated the first name of a flag stands where a default would
            names = [given for given in (info.default, *(info.param_decls or ())) if isinstance(given, str)]
            flag = ", ".join(f"`{given}`" for given in names) or flag
        default = "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"
        if parameter.default is parameter.empty:
            default = "required"
        meaning = " ".join(((info.help if info else None) or "").split())
        lines.append(f"| {flag} | {_value(hint)} | {default} | {meaning} |")
    return "\n".join(lines)


def _value(hint: Any) -> str:
    """What is written after a flag; nothing when it stands alone."""
    kinds = {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}
    if get_origin(hint) is list:
        return f"{_value(get_args(hint)[0])}, may be repeated"
    if get_origin(hint) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(hint))
    if hint not in kinds:
        return _value(next(argument for argument in get_args(hint) if argument is not type(None)))
    return kinds[hint]


def _sentence(documented: Any) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    for page, text in pages().items():
        (REFERENCE / page).write_text(text, encoding="utf-8")

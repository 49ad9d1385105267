"""The card of a dataset: README.md, with a header that tells `datasets` where the rows of each kind are.

Instructions, names and criteria are written by people; they stand in the card as text, never as markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuneful.errors import DataError
from tuneful.visible import visible


@dataclass(frozen=True, slots=True)
class Config:
    """Rows of one kind: their columns, and the file of each split."""

    name: str
    columns: list[dict[str, Any]]
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class License:
    """What somebody wrote into a card that is written anew: the lines of its header that begin with `license`, and all
    that stands below the heading "License"."""

    header: tuple[str, ...] = ()
    section: str = ""


_LICENSE: Final = "\n## License\n"

_NOT_SAID: Final = "Not said yet. Say it here and in the header."

_HEADER: Final = re.compile(r"---\n.*?\n---(\n|$)", re.DOTALL)

_LICENSED: Final = re.compile(r"^license\w*:.*(\n([ \t]+|- ).*)*", re.MULTILINE)
"""A key of the header with its value, which may be a list or a text of several lines."""


def card(
    manifest: Mapping[str, Any],
    configs: Sequence[Config],
    instructions: Mapping[str, tuple[str, int]],
    *,
    fewest: int,
    license_: License,
) -> str:
    """The card of the dataset of this manifest. instructions: by version, the text and how many judgments follow it."""
    parts = [_header(manifest, configs, license_), f"# {_line(manifest['name'])}", _begin(manifest)]
    parts += ["## What is here", _files(manifest), *([_use(configs[0])] if configs else [])]
    parts += ["## Columns", _COLUMNS, "## Who judged", _raters(manifest, fewest)]
    parts += ["## How far they agree", _agreement(manifest)]
    parts += ["## What they were told", *_instructions(instructions)]
    parts += ["## How it was made", _made(manifest), _LICENSE.strip(), license_.section or _NOT_SAID]
    return "\n\n".join(parts) + "\n"


def license_in(path: Path) -> License:
    """What the card of an earlier dataset says of its license, and whatever stands behind that; nothing where there is
    no card. Raises DataError for one that is no text."""
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        return License()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read for its license: {error}; save it as UTF-8 or move it") from None
    header = _HEADER.match(text)
    lines = () if header is None else tuple(found.group() for found in _LICENSED.finditer(header.group()))
    _, _, section = text.rpartition(_LICENSE)
    section = section.strip() if _LICENSE in text else ""
    return License(lines, "" if section == _NOT_SAID else section)


_COLUMNS = """\
| column | means |
|---|---|
| `prompt`, `chosen`, `rejected` | TRL's preference with the prompt apart; messages where the prompt is a conversation |
| `p` | probability that a new careful rater prefers `chosen`; of single answers, that it is good |
| `weight`, `group` | pairs of one group are of one item, where all pairs weigh 1 together; keep a group in one batch |
| `num_labels`, `agreement` | judgments that order this very pair, and the share that prefer `chosen`, ties half |
| `decided` | true where the project's lead settled the item; then `p` is 1, for a tie 1/2 |
| `criterion` | what was asked |
| `instructions`, `rater_kinds` | versions that raters followed; `human`, `ai` or `simulated` |
| `chosen_flags`, `rejected_flags` | what half of the raters or more said of an answer, in flagged pairs |
| `label`, `source` | of single answers: whether good; said so (`binary`), or found from pairs (`pairs`) |
| `empty` | true where an answer of empty text is what a model said |
| `margin` | only where asked for: difference of the scores in units of the loss; use it or p, not both |"""


def _header(manifest: Mapping[str, Any], configs: Sequence[Config], license_: License) -> str:
    header: dict[str, Any] = {"pretty_name": " ".join(visible(manifest["name"]).split())}
    if configs:
        header["configs"] = [
            {"config_name": one.name}
            | ({"default": True} if one is configs[0] else {})
            | {"data_files": [{"split": split, "path": path} for split, path in one.files.items()]}
            for one in configs
        ]
        header["dataset_info"] = [{"config_name": one.name, "features": one.columns} for one in configs]
    return "\n".join(["---", *(license_.header or ("# license: say which, such as cc-by-4.0",)), *_yaml(header), "---"])


def _yaml(value: Any, depth: int = 0) -> Iterator[str]:
    """Tables and lists of tables as block YAML; a scalar is JSON, which YAML reads."""
    pad = "  " * depth
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list):
                yield f"{pad}{key}:"
                yield from _yaml(inner, depth + 1)
            else:
                yield f"{pad}{key}: {json.dumps(inner, ensure_ascii=False)}"
    else:
        for inner in value:
            first, *rest = _yaml(inner, depth + 1)
            yield f"{pad}- {first.lstrip()}"
            yield from rest


def _begin(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    audience = manifest["audience"]
    of = f" Only judgments of the audience {_code(audience)} are in it." if audience else ""
    return f"{counts['latest']:,} judgments of {counts['items']:,} items, collected with tuneful.{of}"


def _files(manifest: Mapping[str, Any]) -> str:
    rows = [f"| {_code(file['name'])} | {file['rows']:,} |" for file in manifest["files"]]
    left_out = manifest["left_out"]
    lines = ["| file | rows |", "|---|---|", *rows]
    if left_out:
        lines += ["", "Left out:", "", *(f"- {reason}: {number:,}" for reason, number in left_out.items())]
    splits = ", ".join(f"{_code(split)} {number:,}" for split, number in manifest["counts"]["prompts"].items())
    lines += ["", f"Prompts by split: {splits}. All that belongs to one prompt is in one split."]
    return "\n".join(lines)


def _use(config: Config) -> str:
    return f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset("PATH", "{config.name}")\n```'


def _raters(manifest: Mapping[str, Any], fewest: int) -> str:
    counts = manifest["counts"]
    said = counts["judgments_by_rater_kind"]
    lines = ["| raters | how many | judgments |", "|---|---|---|"]
    lines += [f"| {kind} | {number:,} | {said[kind]:,} |" for kind, number in counts["raters"].items()]
    if counts["decided"]:
        items = "1 item" if counts["decided"] == 1 else f"{counts['decided']:,} items"
        lines += ["", f"The project's lead settled {items}; how far raters are trusted is not changed by that."]
    if counts["groups"]:
        lines += ["", f"What people say of themselves; groups of fewer than {fewest} are not told.", ""]
        lines += ["| group | people |", "|---|---|"]
        lines += [f"| {_code(group)} | {number:,} |" for group, number in counts["groups"].items()]
    return "\n".join(lines)


def _agreement(manifest: Mapping[str, Any]) -> str:
    if not manifest["agreement"]:
        return "No judgment orders two answers."
    lines = [
        "Krippendorff's alpha of the rankings with its 95 % interval: 1 is full agreement, 0 what chance gives.",
        "",
    ]
    lines += ["| criterion | alpha | pairs judged twice or more |", "|---|---|---|"]
    for criterion, told in manifest["agreement"].items():
        alpha = f"not known: {told['reason']}" if told["alpha"] is None else f"{told['alpha']:.3f}"
        if told["interval"]:
            alpha += " [{:.3f}, {:.3f}]".format(*told["interval"])
        lines.append(f"| {_code(criterion)} | {alpha} | {told['pairs']:,} |")
    return "\n".join(lines)


def _instructions(instructions: Mapping[str, tuple[str, int]]) -> list[str]:
    if not instructions:
        return ["There is no text of instructions."]
    parts = []
    for version, (text, number) in instructions.items():
        shown = visible(text).strip("\n")
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
        parts += [f"### Version {_code(version)}, {number:,} judgments", f"{fence}text\n{shown}\n{fence}"]
    return parts


def _made(manifest: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} = {_code(json.dumps(value))}" for name, value in manifest["settings"].items())
    return (
        f"By tuneful {manifest['version']}: {settings}. `manifest.json` has the SHA-256 of every file and of what they "
        "were made from. The consensus weighs raters by how far they agree with others; nobody is removed."
    )


def _line(text: str) -> str:
    """Words of people as part of a heading."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(visible(text).split()))


def _code(text: str) -> str:
    """Words of people as a code span, in a table, too."""
    plain = " ".join(visible(str(text)).split()) or "?"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    gap = " " if plain[0] == "`" or plain[-1] == "`" else ""
    return f"{fence}{gap}{plain}{gap}{fence}".replace("|", "\\|")

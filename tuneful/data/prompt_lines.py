"""Text files with a prompt on each line, as people keep a list of questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuneful.data.jsonl import lines
from tuneful.data.row import Row
from tuneful.errors import DataError


def is_plain_text(path: Path) -> bool:
    """True for a `.txt` file, unless it holds JSON lines under that name."""
    if path.suffix != ".txt":
        return False
    first = next((line for line in lines(path) if line.strip()), b"")
    return not first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def read_prompt_lines(path: Path) -> Iterator[Row]:
    """A row with the field "prompt" for every line that is not blank. Raises DataError as `read_jsonl` does."""
    num_rows = 0
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            num_rows += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte {error.start + 1} of the line"
                raise Row(path, number, {}).error(problem, "save the file as UTF-8") from None
            yield Row(path, number, {"prompt": text})
    if not num_rows:
        raise DataError(f"{path}: holds no prompts; write one to a line")

"""Nothing changes a store past its trail: read from the source, so that what is written tomorrow is held to it too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from tests.architecture.test_floors import MODULES

FEEDBACK = "tuneful.feedback"
EVENT = f"{FEEDBACK}.trail.add"

WITHOUT_AN_EVENT = {
    # What labelers do: these rows are never changed, and a dataset's manifest has the hash of them all.
    "assignment.claim": "a lease",
    "assignment.take": "a model's hold on an item",
    "assignment.extend": "a lease",
    "assignment.skip": "a labeler's own",
    "assignment.save_draft": "no judgment yet",
    "submission.submit": "a judgment",
    # Who is there, and with what secret; the trail tells who was let in and as what.
    "access._by_password": "wrong passwords are counted",
    "access.sign_in": "a session",
    "access.sign_out": "a session",
    "access.sign_out_everywhere": "sessions",
    "access.change_password": "one's own secret",
    "access._note_use": "when a session or token was last used",
    # What follows from the rows, and can be made anew of them.
    "adaptive._in_parts": "overlap and order that follow from the judgments, within what `set_overlap` allows",
    "snapshots.keep": "a measurement",
    "dataset_files._keep": "the file of a dataset, whose writing is told",
    # A worker's hold on a job; the trail tells that it was asked for, what came of it and how it ended.
    "jobs.extend": "a lease",
    "jobs.report": "how far it is",
    "jobs.give_back": "a lease",
    "backup.copy": "another file, which has the trail as it is",
    "store.Store.open": "tables, before there is anything in them",
}
"""Functions that write and leave no event, and why they need not."""


@cache
def functions() -> dict[str, ast.AST]:
    """Every function and method of the package, what is defined inside it included, by its full name."""
    found: dict[str, ast.AST] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            owner = f"{module}.{node.name}" if isinstance(node, ast.ClassDef) else module
            found |= {f"{owner}.{one.name}": one for one in inner if isinstance(one, ast.FunctionDef)}
    return found


@cache
def imported(module: str) -> dict[str, str]:
    """What the names of a module stand for, imports inside functions included."""
    names: dict[str, str] = {}
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return names


def module_of(name: str) -> str:
    return next(name[:end] for end in range(len(name), 0, -1) if name[:end] in MODULES)


def names_in(function: str) -> Iterator[str]:
    """Full names of what a function calls or hands on."""
    module = module_of(function)
    for node in ast.walk(functions()[function]):
        if isinstance(node, ast.Name):
            yield imported(module).get(node.id, f"{module}.{node.id}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{imported(module).get(node.value.id, '')}.{node.attr}"


@cache
def leaves_an_event(function: str) -> bool:
    """Whether the trail's `add` can be reached from it."""
    seen, left = set(), [function]
    while left:
        name = left.pop()
        if name == EVENT:
            return True
        if name in functions() and name not in seen:
            seen.add(name)
            left += names_in(name)
    return False


@cache
def writers() -> frozenset[str]:
    """Functions that begin a transaction which writes, and those that give one statements of their own."""
    return frozenset(
        name
        for name, node in functions().items()
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and (writes(call, name) or any(one.arg == "also" for one in call.keywords))
    )


def writes(call: ast.Call, function: str) -> bool:
    """Whether it is `store.write(…)`, by whatever name a store has."""
    named = isinstance(call.func, ast.Attribute) and call.func.attr == "write"
    return named and is_store(ast.unparse(call.func.value), function)


def is_store(receiver: str, function: str) -> bool:
    if function.startswith(FEEDBACK):
        return receiver not in ("file", "packed", "self._turns")
    return receiver.rpartition(".")[2] in ("store", "opened")


def acts() -> set[str]:
    """Every kind of event that the package adds."""
    calls = [node for one in functions().values() for node in ast.walk(one) if isinstance(node, ast.Call)]
    kinds = [call.args[1] for call in calls if ast.unparse(call.func) == "trail.add"]
    return {kind.value for kind in kinds if isinstance(kind, ast.Constant)}


def test_whoever_changes_a_store_leaves_an_event_or_says_why_not() -> None:
    silent = {name.removeprefix(f"{FEEDBACK}.") for name in writers() if not leaves_an_event(name)}
    assert silent == set(WITHOUT_AN_EVENT)


def test_the_search_sees_what_it_must() -> None:
    """One that writes itself, one by a function of another module, one that leaves none, and statements handed on."""
    assert leaves_an_event(f"{FEEDBACK}.projects.create_project")
    assert leaves_an_event(f"{FEEDBACK}.completions_wanted.ask_for")
    assert not leaves_an_event(f"{FEEDBACK}.submission.submit")
    assert f"{FEEDBACK}.submission.submit" in writers()
    assert f"{FEEDBACK}.dataset_files._keep" in writers()
    assert f"{FEEDBACK}.dataset_files.pack" not in writers()


def test_a_store_is_written_by_its_own_folder_alone() -> None:
    assert {name for name in writers() if not name.startswith(FEEDBACK)} == set()

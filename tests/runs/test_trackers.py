"""Trackers are shown each row of a run once, whatever happens to the run and to them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneful.errors import ConfigError
from tuneful.runs.logs import JsonLog
from tuneful.runs.trackers import Mirror


class Service(ModuleType):
    """What wandb and trackio have in common, with a memory that outlives the processes that show it something.

    runs: by id (wandb) or name (trackio), rows as {step: measures}, in the order they came in.
    """

    def __init__(self) -> None:
        super().__init__("service")
        self.runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.inits: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, dict[str, Any]]] = []
        self.exits: list[Any] = []
        self.broken = False

    def init(self, **given: Any) -> Service:
        sys.stdout.write("a service says hello\n")
        self.inits.append(given)
        self._rows = self.runs.setdefault(given.get("id", given["name"]), [])
        self.step = self._next_step = max((step + 1 for step, _ in self._rows), default=0)
        return self

    def define_metric(self, name: str, **how: Any) -> None:
        self.metrics.append((name, how))

    def log(self, measures: dict[str, float], *, step: int) -> None:
        if self.broken:
            raise ConnectionError("no route to host\nat 0x7f")
        self._rows.append((step, measures))

    def finish(self, **how: Any) -> None:
        self.exits.append(how)


@pytest.fixture(params=["wandb", "trackio"])
def name(request) -> str:
    return request.param


@pytest.fixture
def service(name, monkeypatch) -> Service:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    made = Service()
    monkeypatch.setitem(sys.modules, name, made)
    return made


def rows(steps: range, **measures: float) -> list[dict[str, Any]]:
    return [{"step": step, "kind": "train", "kl": step / 8, **measures} for step in steps]


def process(out: Path, names: list[str], stages: Mapping[str, list[Mapping[str, Any]]], kept: int = 0) -> list[str]:
    """One process of a run: each stage's log is cut back to its first `kept` rows and goes on with those given."""
    warnings: list[str] = []
    mirror = Mirror(names, warnings.append)
    out.mkdir(exist_ok=True)
    with mirror.opened(out, {"seed": 3, "stages": {}}):
        for stage, given in stages.items():
            log = JsonLog(out / f"{stage}.jsonl")
            with mirror.following(stage, log):
                if given:  # else the stage is done
                    log.cut_back(sum(len(line) for line in log.path.read_bytes().splitlines(keepends=True)[:kept]))
                for row in given:
                    log.write(row)
            log.close()
    return warnings


def test_numbers_arrive_under_stage_and_kind(tmp_path, name, service):
    given = [
        {"step": 0, "kind": "evaluation", "reward": 0.5, "seconds": 2},
        {"step": 1, "kind": "train", "loss": float("nan"), "kl": 0.25, "note": "text", "done": True},
        {"step": 1, "kind": "alarm", "reason": "kl", "action": "log"},
        {"step": 2, "kind": "train", "loss": 1.0},
    ]
    assert process(tmp_path / "run", [name], {"ppo": given}) == []
    [shown] = service.runs.values()
    assert shown == [
        (0, {"ppo/evaluation/reward": 0.5, "ppo/evaluation/seconds": 2.0, "ppo/step": 0}),
        (1, {"ppo/train/kl": 0.25, "ppo/step": 1}),
        (3, {"ppo/train/loss": 1.0, "ppo/step": 2}),
    ]
    [init] = service.inits
    assert init["project"] == "tuneful"
    assert init["config"] == {"seed": 3, "stages": {}}
    assert init["resume"] == "allow"
    assert init["name"].partition("-")[0] == "run"


def test_stages_are_counted_on(tmp_path, name, service):
    process(tmp_path / "run", [name], {"sft": rows(range(1, 3)), "ppo": rows(range(1, 4))})
    [shown] = service.runs.values()
    assert [step for step, _ in shown] == [0, 1, 2, 3, 4]
    assert [row.get("ppo/step") for _, row in shown] == [None, None, 1, 2, 3]


def test_a_resumed_run_is_continued_without_doubles(tmp_path, name, service):
    """Killed after step 5 of ppo with the checkpoint at step 3, and again at once; then it runs to step 7."""
    process(tmp_path / "run", [name], {"sft": rows(range(1, 3)), "ppo": rows(range(1, 6))})
    process(tmp_path / "run", [name], {"sft": [], "ppo": rows(range(4, 5))}, kept=3)
    process(tmp_path / "run", [name], {"sft": [], "ppo": rows(range(4, 8))}, kept=3)
    [shown] = service.runs.values()  # the same run each time
    assert [(step, row["ppo/step"]) for step, row in shown[2:]] == [(n + 1, n) for n in range(1, 8)]
    assert [step for step, _ in shown[:2]] == [0, 1]


def test_what_a_kill_lost_on_the_way_is_shown_on_resume(tmp_path, name, service):
    process(tmp_path / "run", [name], {"ppo": rows(range(1, 6))})
    [shown] = service.runs.values()
    del shown[2:]
    process(tmp_path / "run", [name], {"ppo": rows(range(5, 7))}, kept=4)
    assert [row["ppo/step"] for _, row in shown] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_can_be_shown_later(tmp_path, name, service):
    stages = {"sft": rows(range(1, 3)), "ppo": rows(range(1, 4))}
    process(tmp_path / "run", [], stages)
    assert not service.inits
    assert not (tmp_path / "run" / ".tracker-id").exists()
    process(tmp_path / "run", [name], {stage: [] for stage in stages})
    [shown] = service.runs.values()
    assert len(shown) == 5


def test_another_run_in_the_same_place_is_another_run(tmp_path, name, service):
    process(tmp_path / "run", [name], {"ppo": rows(range(1, 3))})
    (tmp_path / "run" / ".tracker-id").unlink()  # as --force does
    (tmp_path / "run" / "ppo.jsonl").unlink()
    process(tmp_path / "run", [name], {"ppo": rows(range(1, 3))})
    assert [len(shown) for shown in service.runs.values()] == [2, 2]


def test_a_tracker_that_fails_is_warned_of_once(tmp_path, name, service):
    service.broken = True
    warnings = process(tmp_path / "run", [name], {"ppo": rows(range(1, 5))})
    assert warnings == [f"warning: {name} has failed and is left out from here on: ConnectionError: no route to host"]
    assert len((tmp_path / "run" / "ppo.jsonl").read_text().splitlines()) == 4


def test_a_tracker_that_cannot_begin_is_warned_of_and_the_other_goes_on(tmp_path, name, service, monkeypatch):
    other = {"wandb": "trackio", "trackio": "wandb"}[name]
    refusing = ModuleType(other)
    monkeypatch.setitem(sys.modules, other, refusing)  # has no init
    [warning] = process(tmp_path / "run", [other, name], {"ppo": rows(range(1, 5))})
    assert warning.startswith(f"warning: {other} has failed and is left out from here on: AttributeError")
    [shown] = service.runs.values()
    assert len(shown) == 4


def test_a_tracker_does_not_write_where_results_go(tmp_path, name, service, capsys):
    process(tmp_path / "run", [name], {"ppo": rows(range(1, 2))})
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "a service says hello\n"


def test_a_run_that_fails_is_closed_as_failed(tmp_path, service, name):
    mirror = Mirror([name], print)
    with pytest.raises(ZeroDivisionError), mirror.opened(tmp_path, {}):
        raise ZeroDivisionError
    assert service.exits == [{"exit_code": 1} if name == "wandb" else {}]


def test_wandb_draws_each_stage_over_its_own_steps(tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    process(tmp_path / "run", ["wandb"], {"sft": rows(range(1, 3)), "ppo": rows(range(1, 3))})
    drawn_over = {name: how["step_metric"] for name, how in service.metrics if "step_metric" in how}
    assert drawn_over == {"sft/*": "sft/step", "ppo/*": "ppo/step"}
    assert service.inits[0]["project"] == "ours"
    assert service.inits[0]["name"] == "run"
    assert service.inits[0]["dir"] == str(tmp_path / "run")


def test_a_tracker_that_is_not_known():
    with pytest.raises(ConfigError, match=r'^--track "wandd" is not known; did you mean "wandb"\?$'):
        Mirror(["wandd"], print)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_package_that_is_not_installed(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"^--track {name}: .*; pip install 'tuneful\[{name}\]'$"):
        Mirror([name], print)


class TestTensorBoard:
    """Read back with TensorBoard's own reader."""

    @pytest.fixture
    def read(self, tmp_path):
        reader = pytest.importorskip(
            "tensorboard.backend.event_processing.plugin_event_accumulator", reason="tensorboard is not installed"
        )

        def read():
            seen = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"tensors": 0})
            seen.Reload()
            return seen

        return read

    @staticmethod
    def points(seen, tag: str) -> list[tuple[int, float]]:
        return [(e.step, e.tensor_proto.float_val[0]) for e in seen.Tensors(tag)]

    def test_rows_and_recipe_come_back(self, tmp_path, read):
        given = [*rows(range(1, 3)), {"step": 2, "kind": "evaluation", "reward": 0.5}]
        assert process(tmp_path / "run", ["tensorboard"], {"ppo": given}) == []
        seen = read()
        assert self.points(seen, "ppo/train/kl") == [(1, 0.125), (2, 0.25)]
        assert self.points(seen, "ppo/evaluation/reward") == [(2, 0.5)]
        assert set(seen.Tags()["tensors"]) == {"recipe", "ppo/train/kl", "ppo/evaluation/reward"}
        [recipe] = seen.Tensors("recipe")
        assert '"seed": 3' in recipe.tensor_proto.string_val[0].decode()

    def test_a_resumed_run_has_no_doubles_and_no_holes(self, tmp_path, read):
        process(tmp_path / "run", ["tensorboard"], {"sft": rows(range(1, 3)), "ppo": rows(range(1, 6))})
        for file in (tmp_path / "run" / "tensorboard").iterdir():  # a kill came before the end was on the disk
            file.write_bytes(file.read_bytes()[:-100])
        process(tmp_path / "run", ["tensorboard"], {"sft": [], "ppo": rows(range(4, 8))}, kept=3)
        seen = read()
        assert self.points(seen, "ppo/train/kl") == [(n, n / 8) for n in range(1, 8)]
        assert self.points(seen, "sft/train/kl") == [(n, n / 8) for n in range(1, 3)]

"""--device: what a command, and what it starts, sees of the machine's GPUs."""

from __future__ import annotations

import os

import pytest
import torch
from typer.core import TyperGroup
from typer.main import get_command

from tuneful.cli.main import app
from tuneful.cli.options import see_device
from tuneful.errors import ConfigError


@pytest.mark.parametrize(
    ("seen", "device", "then"),
    [
        (None, None, None),
        (None, "cpu", ""),
        ("3,5", "cpu", ""),
        (None, "cuda", None),
        ("3,5", "cuda", "3,5"),
        (None, "cuda:1", "1"),
        ("3,5", "cuda:1", "5"),  # the second of those that are seen
        ("3,5", "cuda:2", ""),  # none is left, so that none is taken
        ("", "cuda:0", ""),
    ],
)
def test_a_device_is_all_that_is_seen(
    seen: str | None, device: str | None, then: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "kept by monkeypatch")
    os.environ.pop("CUDA_VISIBLE_DEVICES")
    if seen is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen
    monkeypatch.setattr(torch.cuda, "is_available", lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != "")
    if device not in (None, "cpu") and then == "":
        with pytest.raises(ConfigError, match=f"--device {device}: there is no such GPU here"):
            see_device(device)
    else:
        assert see_device(device) == device
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == then


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", ""])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="no device; give cpu, cuda, or cuda:1"):
        see_device(device)


def test_a_rank_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="under torchrun each process takes a GPU of its own"):
        see_device("cuda:1")


def test_every_command_that_loads_a_model_takes_it() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    without = {
        name
        for name, command in group.commands.items()
        if "--device" not in (option for parameter in command.params for option in parameter.opts)
    }
    assert without == {"label", "translate"}
    label = group.commands["label"]
    assert isinstance(label, TyperGroup)
    assert "--device" in [option for parameter in label.commands["create"].params for option in parameter.opts]

"""Planted defects in models, tokenizers and templates, and that each is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.conftest import CHAT_TEMPLATE
from tuneful.pipeline.doctor.finding import Finding
from tuneful.pipeline.doctor.model import look_at_model
from tuneful.records import Completion, Message, Prompt

TURNS = "conversations of 1 with a turn that the template changes or leaves out"
REFUSED = "conversations of 1 that the template refuses"
ENDING = "the template ends an answer with"


@pytest.fixture
def model(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def findings(model: Path, *arguments: Any, **options: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in look_at_model(str(model), *arguments, **options)}


def noted(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.status for name, finding in found.items() if finding.status != "ok"}


def with_template(model: Path, template: str | None) -> Path:
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)
    return model


def test_a_sound_model_is_found_sound(model: Path) -> None:
    found = findings(model)
    assert noted(found) == {}
    assert found["end tokens in generation_config.json"].value == "<eos>"
    assert found[ENDING].value == "'<eos>'"
    assert found["context"].value == 128


def test_an_end_that_other_tools_do_not_stop_at(model: Path) -> None:
    file = model / "generation_config.json"
    config = json.loads(file.read_text())
    for ends, shown, word in ((5, "<assistant>", "stop elsewhere"), ([4, 5], "<user>, <assistant>", "stop elsewhere")):
        file.write_text(json.dumps(config | {"eos_token_id": ends}))
        found = findings(model)
        assert noted(found) == {"end tokens in generation_config.json": "note"}
        assert found["end tokens in generation_config.json"].value == shown
        assert word in found["end tokens in generation_config.json"].mend
    file.write_text(json.dumps(config | {"eos_token_id": [5, 2]}))
    assert noted(findings(model)) == {}


def test_a_template_that_ends_turns_by_another_token(model: Path) -> None:
    found = findings(with_template(model, CHAT_TEMPLATE.replace("eos_token if", "'<user>' if")))
    assert noted(found) == {ENDING: "note"}
    assert found[ENDING].value == "'<user>'"
    assert "set eos_token to the token" in found[ENDING].mend


def test_a_template_whose_prompt_does_not_begin_the_answer(model: Path) -> None:
    found = findings_until_error(with_template(model, CHAT_TEMPLATE.replace("%}<assistant>{%", "%}<user>{%")))
    broken = found["what the template makes of an answer"]
    assert broken.status == "fail"
    assert "generation prompt begins the assistant's turn" in broken.mend


def findings_until_error(model: Path) -> dict[str, Finding]:
    """A model that cannot be taught anything stops the look; what was found before counts."""
    found: dict[str, Finding] = {}
    with pytest.raises(Exception, match="template"):  # noqa: PT012 -- a generator is read until it stops
        for finding in look_at_model(str(model)):
            found[finding.name] = finding
    return found


def test_a_template_that_leaves_turns_out(model: Path) -> None:
    """As templates do that keep the last turn alone, or drop what an assistant said before."""
    found = findings(with_template(model, CHAT_TEMPLATE.replace("in messages", "in messages[-2:]")))
    assert noted(found) == {TURNS: "note"}
    assert "“The tap drips.”, said by the user" in found[TURNS].mend


def test_a_template_that_refuses_a_conversation(model: Path) -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + CHAT_TEMPLATE
    found = findings(with_template(model, template))
    assert noted(found) == {REFUSED: "fail"}
    assert "one turn only" in found[REFUSED].mend


def test_conversations_of_the_data_are_tried(model: Path) -> None:
    """White space at the ends of a turn may go, words may not."""
    talk = (Message("user", "  hot  "), Message("assistant", "open the door "), Message("user", "and now "))
    trims = with_template(model, CHAT_TEMPLATE.replace("m['content']", "m['content'] | trim"))
    assert noted(findings(trims, [Prompt(talk)])) == {}
    upper = with_template(model, CHAT_TEMPLATE.replace("m['content']", "m['content'] | replace('door', 'gate')"))
    found = findings(upper, [Prompt(talk), Prompt.user("hot")])
    assert noted(found) == {TURNS: "note"}
    assert "open the door" in found[TURNS].mend


def test_a_model_without_a_template(model: Path) -> None:
    found = findings(with_template(model, None))
    assert noted(found) == {"chat template": "note"}


def test_prompts_and_answers_that_do_not_fit(model: Path) -> None:
    """The template puts 3 tokens around a prompt of one turn; the context has 128."""
    prompts = [Prompt.user("tap " * n) for n in (1, 5, 100, 124, 125, 300)]
    answers = [
        (prompts[0], Completion("tea " * 20)),
        (prompts[2], Completion("tea " * 24)),
        (prompts[2], Completion("tea " * 25)),
    ]
    told: list[tuple[int, int]] = []
    found = findings(model, prompts, answers, progress=lambda done, total: told.append((done, total)))
    assert noted(found) == {
        "prompts that fill the context of 128": "fail",
        "answers that go beyond the context of 128": "note",
    }
    assert found["tokens of a prompt: median, 95 %, most"].value == "115 / 259 / 303"
    assert found["prompts that fill the context of 128"].value == 2
    assert found["tokens of an answer: median, 95 %, most"].value == "25 / 26 / 26"
    assert found["answers that go beyond the context of 128"].value == 1
    assert (told[0], told[-1]) == ((1, 9), (9, 9))
    cut = findings(model, prompts, max_prompt_tokens=103)
    assert noted(cut) == {"prompts of more than 103 tokens": "note"}
    assert cut["prompts of more than 103 tokens"].value == 3

"""Instructions to begin with: one text for every kind of task, with examples and the criterion's meaning."""

from __future__ import annotations

from typing import get_args

import pytest

from tuneful.feedback.starters import starter
from tuneful.records import JudgmentKind
from tuneful.web.templating import instructions_html


@pytest.mark.parametrize("kind", get_args(JudgmentKind))
@pytest.mark.parametrize("criterion", ["helpful", "honest", "harmless", "{criterion} & <b>mine</b>"])
def test_it_has_examples_and_says_what_to_do(kind: JudgmentKind, criterion: str) -> None:
    page = instructions_html(starter(kind, criterion))
    assert page.count("<h1>") == 1
    assert "<h2>What you do</h2>" in page
    assert "<table>" in page
    assert "<b>" not in page


def test_a_criterion_of_one_s_own_is_left_to_the_lead() -> None:
    assert "what “witty” means here" in starter("ranking", "witty")
    assert len({starter(kind, "helpful") for kind in get_args(JudgmentKind)}) == len(get_args(JudgmentKind))

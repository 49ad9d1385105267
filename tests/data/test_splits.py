"""Splits by the first user turn, and the guard that keeps each set to its purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.formats import read_prompts
from tuneful.data.splits import ALLOWED, SHARES, Purpose, Splits, split, split_of
from tuneful.errors import ConfigError, DataError
from tuneful.records import Comparison, Message, Prompt

HOUSE = "My house is too hot."
MANY = [Prompt(f"Question number {i}?") for i in range(4000)]


def test_split_by_hand() -> None:
    # printf '\nmy house is too hot.' | sha256sum begins 928f: 0x928f / 0x10000 = .572, between .4 and .8
    assert split_of(Prompt(HOUSE)) == "rl"
    # printf '\nmy tea is cold.' | sha256sum begins f0a4: .940, the last tenth
    assert split_of(Prompt("My tea is cold.")) == "test"
    assert split_of(Prompt(HOUSE), {"one": 0.5, "two": 0.07, "three": 0.43}) == "three"


@given(st.text(min_size=1), st.text())
def test_the_first_user_turn_decides_alone(first: str, later: str) -> None:
    alone = Prompt.user(first)
    long = (Message("system", later), Message("user", first), Message("assistant", later), Message("user", later))
    assert split_of(Prompt(long)) == split_of(alone) == split_of(Prompt(first))


def test_white_space_and_case_do_not_decide() -> None:
    assert split_of(Prompt(" MY  tea\nis cold. ")) == "test"


def test_shares_hold_on_average() -> None:
    sets = split(MANY)
    assert sum(map(len, sets.values())) == 4000
    for name, share in SHARES.items():  # 5 standard errors of a share of .4 among 4000 are .039
        assert len(sets[name]) / 4000 == pytest.approx(share, abs=0.039)


def test_new_prompts_move_nobody() -> None:
    some, all_ = split(MANY[:100]), split(MANY)
    assert all(set(some[name]) <= set(all_[name]) for name in SHARES)


def test_a_share_of_nothing_stays_empty() -> None:
    assert split(MANY, {"reward": 1.0, "rl": 0.0}) == {"reward": MANY, "rl": []}


@pytest.mark.parametrize("shares", [{}, {"reward": 0.5}, {"reward": 1.5, "rl": -0.5}])
def test_shares_that_are_no_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="add up to 1"):
        split_of(Prompt(HOUSE), shares)


def test_pairs_follow_their_prompt() -> None:
    pairs = [Comparison(prompt, "a", "b") for prompt in MANY[:50]]
    prompts = split(MANY[:50])
    assert {name: [p.prompt for p in rows] for name, rows in split(pairs).items()} == prompts


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("purpose", ALLOWED)
def test_every_set_for_every_purpose(name: str, purpose: Purpose) -> None:
    splits = Splits(MANY)
    rule = {"reward": {"train"}, "rl": {"train"}, "dev": {"stop"}, "test": {"report"}}
    if purpose in rule[name]:
        assert splits.read(name, purpose=purpose) == split(MANY)[name]
    else:
        with pytest.raises(DataError, match=f'may not read split "{name}" for purpose "{purpose}"'):
            splits.read(name, purpose=purpose)
        assert splits.reads == []


def test_who_read_what_is_kept() -> None:
    splits = Splits(MANY)
    splits.read("reward", purpose="train", stage="reward-model")
    splits.read("reward", purpose="train", stage="reward-model")
    splits.read("dev", purpose="stop", stage="ppo")
    with pytest.raises(DataError, match='stage "ppo" may not read split "test" for purpose "stop"; it reads "dev"'):
        splits.read("test", purpose="stop", stage="ppo")
    assert splits.reads == [
        {"split": "reward", "purpose": "train", "stage": "reward-model"},
        {"split": "dev", "purpose": "stop", "stage": "ppo"},
    ]


def test_manifest_names_every_prompt() -> None:
    manifest = Splits(MANY).manifest()
    assert len(manifest) == 4000
    assert manifest[Prompt("Question number 7?").id] == split_of(Prompt("Question number 7?"))


def test_unknown_and_empty_sets_are_refused() -> None:
    splits = Splits([Prompt(HOUSE)])
    with pytest.raises(DataError, match='no split is called "tset"; did you mean "test"'):
        splits.read("tset", purpose="report")
    with pytest.raises(DataError, match=r'split "test" is empty \(reward 0, rl 1, dev 0, test 0\)'):
        splits.read("test", purpose="report")


def test_real_conversations_that_share_an_opening_stay_together(data_dir: Path) -> None:
    # 18 first turns stand in both files (counted apart), with other prompts behind most of them.
    both = [read_prompts(data_dir / "hh-harmless" / f"{name}.jsonl.gz") for name in ("train", "test")]
    shared = {p.first_turn for p in both[0]} & {p.first_turn for p in both[1]}
    assert len(shared) == 18
    for first in shared:
        assert len({split_of(p) for prompts in both for p in prompts if p.first_turn == first}) == 1

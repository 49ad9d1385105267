"""Rules by name, functions by place, and one clear line for what is neither."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneful.errors import ConfigError, RewardError
from tuneful.records import Completion, Prompt
from tuneful.rewards.load import load_reward
from tuneful.rewards.own import load_function
from tuneful.rewards.rules import RULES, FormatRule, LengthRule, WordsRule, longer, shorter

PROMPTS = [Prompt("a"), Prompt("b")]
COMPLETIONS = [Completion("three little words"), Completion("")]


def message(reference: str) -> str:
    with pytest.raises(RewardError) as error:
        load_reward(reference)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rules_count_words() -> None:
    assert shorter(PROMPTS, COMPLETIONS).tolist() == [-3, 0]
    assert longer(PROMPTS, COMPLETIONS).tolist() == [3, 0]


def test_a_rule_by_name() -> None:
    assert set(RULES) == {"shorter", "longer"}
    assert load_reward("shorter") is shorter


def test_a_function_of_a_module() -> None:
    assert load_reward("tuneful.rewards.rules:longer")(PROMPTS, COMPLETIONS).tolist() == [3, 0]


def test_a_function_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import torch\n\ndef vowels(prompts, completions):\n    return torch.ones(len(completions))\n")
    assert load_function(f"{file}:vowels")(PROMPTS, COMPLETIONS).tolist() == [1, 1]
    found = message(f"{file}:vowel")
    assert found == f'reward "{file}:vowel": {file} has no function "vowel"; did you mean "vowels"?'


ORDINARY = """from __future__ import annotations

from dataclasses import dataclass

from wordlist_beside import WORDS


@dataclass
class Count:
    words: int


def known(prompts, completions):
    return [float(Count(sum(word in WORDS for word in c.text.split())).words) for c in completions]
"""


def test_a_file_of_ordinary_python_with_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "wordlist_beside.py").write_text('WORDS = {"three", "words"}\n')
    file = tmp_path / "random.py"  # named like a module of Python, which stays what it was
    file.write_text(ORDINARY)
    path, random = list(sys.path), sys.modules["random"]
    assert load_reward(f"{file}:known")(PROMPTS, COMPLETIONS).tolist() == [2, 0]
    assert sys.path == path
    assert sys.modules["random"] is random


def test_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python does not look there of itself, as it does not for an installed command."""
    (tmp_path / "reward_lying_here.py").write_text(
        "def one(prompts, completions):\n    return [1.0 for _ in prompts]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    assert load_reward("reward_lying_here:one")(PROMPTS, COMPLETIONS).tolist() == [1, 1]


def test_what_does_not_exist(tmp_path: Path) -> None:
    assert message("shortr") == (
        'reward "shortr": no such model directory or rule; did you mean "shorter"?; '
        'a function of your own is written "./file.py:function"'
    )
    assert message("no.such.module:f").startswith('reward "no.such.module:f": no.such.module cannot be loaded: ')
    assert message(f"{tmp_path / 'none.py'}:f").startswith(f'reward "{tmp_path / "none.py"}:f": ')


MINE = """import torch

def nothing(prompts, completions):
    torch.ones(len(completions))

def one(prompts, completions):
    return [1.0]

def divides(prompts, completions):
    return [ratio(c) for c in completions]

def ratio(completion):
    return 1 / len(completion.text)
"""


def refused(reference: str) -> RewardError:
    with pytest.raises(RewardError) as error:
        load_reward(reference)(PROMPTS, COMPLETIONS)
    assert "\n" not in str(error.value)
    return error.value


def test_what_a_function_returns_or_raises_is_told_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    must = "it must return one number each, shape (2,)"
    nothing = refused(f"{file}:nothing")
    assert str(nothing) == f'reward "{file}:nothing": the reward returned None for 2 completions; {must}'
    assert "returned shape (1,) for 2 completions" in str(refused(f"{file}:one"))
    divides = refused(f"{file}:divides")
    assert str(divides) == (
        f'reward "{file}:divides": raised ZeroDivisionError: division by zero at {file}:13; '
        "a reward is called with prompts and completions and returns one number for each completion"
    )
    assert isinstance(divides.__cause__, ZeroDivisionError)
    assert divides.__cause__.__traceback__ is not None


def test_a_function_that_is_no_reward() -> None:
    assert str(refused("os.path:join")).startswith('reward "os.path:join": raised TypeError: ')


def test_a_file_that_cannot_be_loaded_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import torch\n\nscale = torhc.ones(1)\n")
    assert message(f"{file}:f") == (
        f"reward \"{file}:f\": {file} cannot be loaded: NameError: name 'torhc' is not defined at {file}:3"
    )


def test_a_file_that_ends_the_program_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import sys\n\nsys.exit(3)\n")
    assert message(f"{file}:f") == (
        f'reward "{file}:f": {file} ends the program when it is loaded: SystemExit: 3 at {file}:3; '
        'keep what is for a script alone behind if __name__ == "__main__"'
    )
    file.write_text("import sys\n\ndef f(prompts, completions):\n    sys.exit()\n")
    assert str(refused(f"{file}:f")).startswith(f'reward "{file}:f": raised SystemExit at {file}:4; a reward is called')


def scores(rule: LengthRule | FormatRule | WordsRule, *texts: str) -> list[float]:
    return load_reward(rule)([Prompt("a")] * len(texts), [Completion(text) for text in texts]).tolist()


def test_words_away_from_a_target_or_beyond_a_budget() -> None:
    texts = ("", "one two", "one two three four")
    assert scores(LengthRule(rule="length", target=2), *texts) == [-2, 0, -2]
    assert scores(LengthRule(rule="length", budget=2), *texts) == [0, 0, -2]


def test_a_pattern_fits_the_whole_or_anywhere() -> None:
    texts = ("Answer: 7", "I think. Answer: 7", "Answer: seven")
    assert scores(FormatRule(rule="format", pattern=r"Answer: \d+"), *texts) == [1, 0, 0]
    assert scores(FormatRule(rule="format", pattern=r"Answer: \d+", anywhere=True), *texts) == [1, 1, 0]


class TestWords:
    TEXTS = ("You IDIOT, shut   up, idiot!", "The idiotic shutter is up.", "")

    def test_words_and_phrases_as_they_stand_in_texts(self) -> None:
        """Of 5 words the first text has two single ones and one phrase; the second only looks so."""
        words = ("idiot", "shut up", "shut")
        assert scores(WordsRule(rule="words", words=words, measure="count"), *self.TEXTS) == [3, 0, 0]
        assert scores(WordsRule(rule="words", words=words, measure="any"), *self.TEXTS) == [1, 0, 0]
        assert scores(WordsRule(rule="words", words=words), *self.TEXTS) == pytest.approx([0.6, 0, 0])

    def test_entries_need_not_be_letters(self) -> None:
        assert scores(WordsRule(rule="words", words=("f***", "c++"), measure="count"), "F*** c++!", "fff") == [2, 0]

    def test_a_file_of_words(self, tmp_path: Path) -> None:
        file = tmp_path / "rude.txt"
        file.write_text("# rude words\nidiot\n\n  shut up \n", encoding="utf-8")
        assert scores(WordsRule(rule="words", file=str(file), measure="count"), *self.TEXTS) == [3, 0, 0]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "cannot be read: No such file or directory; give a text file of words"),
            (b"# nothing\n\n", "holds no words; write one a line"),
            (b"caf\xe9\n", "not UTF-8 at byte 4; save the word list as UTF-8"),
        ],
    )
    def test_a_file_that_is_none(self, tmp_path: Path, content: bytes | None, said: str) -> None:
        file = tmp_path / "rude.txt"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(RewardError) as error:
            load_reward(WordsRule(rule="words", file=str(file)))
        assert str(error.value) == f"{file}: {said}"

    def test_a_file_that_was_not_read_scores_nothing(self, tmp_path: Path) -> None:
        file = tmp_path / "rude.txt"
        file.write_text("idiot\n", encoding="utf-8")
        rule = WordsRule(rule="words", file=str(file))
        with pytest.raises(RewardError, match=r"rude\.txt: not read yet; score with load_reward"):
            rule([Prompt("a")], [Completion("An idiot!")])
        assert rule.read()([Prompt("a")], [Completion("An idiot!")]).tolist() == [0.5]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LengthRule(rule="length"), "length: say either target or budget, a number of words"),
        (lambda: LengthRule(rule="length", target=3, budget=4), "length: say either target or budget"),
        (lambda: LengthRule(rule="length", target=-1), "length: target must be at least 0, got -1"),
        (lambda: FormatRule(rule="format", pattern="(a"), "format: pattern '(a' is no regular expression: missing )"),
        (lambda: WordsRule(rule="words"), "words: give either words = [...] or file"),
        (lambda: WordsRule(rule="words", words=("a",), file="b"), "words: give either words = [...] or file"),
        (lambda: WordsRule(rule="words", words=("a", " ")), "words: one of the words is empty"),
    ],
)
def test_a_rule_that_cannot_be(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(said)


def test_a_pattern_that_cannot_be_says_how_to_mend_it() -> None:
    with pytest.raises(ConfigError, match=r"; put a backslash before a sign that stands for itself$"):
        FormatRule(rule="format", pattern="(a")
    assert scores(FormatRule(rule="format", pattern=r"\(a"), "(a", "a") == [1, 0]

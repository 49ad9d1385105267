"""The report page: complete, self-contained, and unmoved by what models and strangers write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from tuneful.errors import DataError, RunError
from tuneful.evaluation.comparison import compare_models
from tuneful.evaluation.intervals import Measured
from tuneful.evaluation.report import MAX_CHARACTERS, duration, label, number, shown, write_json, write_report
from tuneful.evaluation.reward_accuracy import evaluate_reward
from tuneful.records import Prompt

MEASURED = {"mean": 0.5, "interval": [0.4, 0.6], "n": 300}
VOID = frozenset({"meta", "br", "use", "path"})

NASTY = [
    "<script>alert(1)</script>",
    "</p></article></body></html><h1>mine</h1>",
    '" onmouseover="alert(1)',
    "<img src=https://example.org/x.png onerror=alert(1)>",
    "<svg/onload=alert(1)><math><mtext></mtext></math>",
    "</style><style>body{display:none}",
    "{{ 7 * 7 }} {% include '/etc/passwd' %} ${7*7}",
    "[link](javascript:alert(1)) ![x](https://example.org)",
    "&lt;script&gt; &#60;b&#62; &amp;amp;",
    "\u202eevil\u202c \u2066isolated\u2069 \u200f",
    "zero\u200bwidth \ufeff soft\u00adhyphen \u2060joiner",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f" * 50,
    "nul \x00 escape \x1b[31m bell \x07 c1 \x9b",
    "lone surrogate \ud800 and \udfff, noncharacter \ufffe",
    "A" * 1_000_000,
    "$\\frac{1}{0}$ \\begin{x}",
    "]]> <!-- --> <![CDATA[",
    "tags \U000e0041\U000e0042",
]


class Page(HTMLParser):
    """The elements of a page in order, refusing tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self) -> Iterator[tuple[str, str]]:
        return ((name, value or "") for _, attrs in self.elements for name, value in attrs.items())


def demo_report(name: str = "r1") -> dict[str, Any]:
    prompts = [Prompt.user(f"{i} {name}") for i in range(4)]
    before, after = [["bad answer", "no"]] * 4, [["good answer here", "yes"]] * 4
    compared = compare_models(
        prompts, before, after, {"true_utility": lambda p, t: float("good" in t)}, judge="true_utility"
    )
    rng = np.random.default_rng(0)
    scores, lengths = rng.normal(1, 1, 40).tolist(), rng.integers(5, 9, 40).tolist()
    return {
        "seed": 3,
        "seconds": {"ppo": 104.3, "total": 220.4},
        "reward_model": evaluate_reward(scores, [0.0] * 40, lengths, lengths[::-1]),
        "labelers": [
            {"id": name, "reliability": 2.0, "interval": [1.8, 2.2], "verdict": "reliable", "kind": "careful"},
            {"id": "r2", "reliability": -1.9, "interval": [-2.1, -1.7], "verdict": "inverted", "kind": "upside-down"},
        ],
        **compared,
        "recovered": 0.81,
        "kl": MEASURED,
        "kl_at_start": 2e-7,
        "alarm": {"step": 60, "reason": name},
        "required": [
            {"name": "recovered", "value": 0.81, "bar": 0.6, "passed": True},
            {"name": name, "value": MEASURED, "bar": [0.5, 6], "passed": False},
        ],
    }


def rows() -> list[dict[str, Any]]:
    train = [
        {"step": i, "kind": "train", "reward": i / 5, "kl": i / 9, "entropy": 2.0, "seconds": 1.0} for i in range(60)
    ]
    return train + [{"step": i, "kind": "evaluation", "reward": i / 5, "kl": i / 9} for i in range(0, 60, 20)]


def page(folder: Path, report: dict[str, Any], **more: Any) -> Page:
    write_report(folder / "report.html", report, **more)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_full_report_shows_every_part(tmp_path: Path) -> None:
    samples = [
        {"prompt": "Too hot", "before": "no", "after": "Open a window", "before_score": -1.0, "after_score": 0.9},
        {"step": 60, "prompt": "Drips", "completion": "A new washer", "score": 1.2, "kl": 0.3},
    ]
    seen = page(tmp_path, demo_report(), metrics=rows(), samples=samples, title="The demo world")
    headings = "Before and after|Answers side by side|Training|Distributions|Phrases|Labelers|Reward model|Checks|Time"
    assert [h for h in headings.split("|") if h not in seen.text] == []
    for text in (
        "Seed 3",
        "81.0",
        "1 of 2 checks failed",
        "The hacking alarm rang at step 60",
        "Open a window",
        "washer",
    ):
        assert text in seen.text


def test_numbers_on_the_page_are_the_reports(tmp_path: Path) -> None:
    # utility 0 before; after, one of each prompt's two answers is good: .5 exactly, and it wins or ties: 3/4
    seen = page(tmp_path, demo_report())
    assert "True utility went from 0 to 0.50, a change of 0.50 (0.50 to 0.50), on 4 prompts" in " ".join(
        seen.text.split()
    )
    assert "75.0" in seen.text


def test_a_silent_alarm_is_said(tmp_path: Path) -> None:
    assert "Hacking alarm silent" in page(tmp_path, {"alarm": None}).text
    assert "Hacking alarm" not in page(tmp_path, {"seed": 0}).text


def test_what_was_not_measured_is_said_and_is_no_zero(tmp_path: Path) -> None:
    report = demo_report()
    report["before"]["toxicity"] = report["after"]["toxicity"] = None
    text = page(tmp_path, report).text
    assert "Toxicity: not measured." in text
    assert "Toxicity" not in page(tmp_path, demo_report()).text
    assert "Toxicity: not measured." in page(tmp_path, {"after": {"toxicity": None}}).text


def test_labelers_are_shown_with_how_much_they_judged(tmp_path: Path) -> None:
    rater = {"id": "new", "reliability": 1.7, "interval": [-1.6, 5], "verdict": "unknown", "num_judgments": 217}
    text = page(tmp_path, {"labelers": [rater]}).text
    assert "unknown" in text
    assert "217" in text


def test_every_part_is_optional(tmp_path: Path) -> None:
    full = demo_report()
    for name in full:
        page(tmp_path, {k: v for k, v in full.items() if k != name})
        page(tmp_path, {name: full[name]})
    assert "tuneful" in page(tmp_path, {}).text


def test_a_reward_model_stage_shows_what_it_has(tmp_path: Path) -> None:
    metrics = [{"step": i, "kind": "train", "loss": 0.7 - i / 50, "accuracy": 0.5 + i / 40} for i in range(10)]
    seen = page(tmp_path, {"reward_model": {"heldout_accuracy": MEASURED}}, metrics=metrics)
    assert "Loss" in seen.text
    assert "Labelers" not in seen.text


def test_curves_of_stages_stand_apart(tmp_path: Path) -> None:
    """The steps of one stage run to 9, those of the next begin at 0 again: two curves of ten points, not one of 20."""
    metrics = [
        {"stage": stage, "step": i, "kind": "train", "loss": start - i, "reward": i, "kl": i}
        for stage, start in (("reward_model", 9), ("ppo", 90))
        for i in range(10)
    ]
    seen = page(tmp_path, {}, metrics=metrics)
    titles = ("Reward model: Loss", "PPO: Loss", "Reward model: Reward against KL", "PPO: Reward against KL")
    assert [seen.text.count(title) for title in titles] == [2, 2, 2, 2]  # above the plot, and its name in the drawing
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tables = re.findall(r"<figcaption>([^<]*: Loss)</figcaption>.*?<tbody>(.*?)</tbody>", html, re.DOTALL)
    steps = {name: re.findall(r"<tr><td>(\d+)</td>", body) for name, body in tables}
    assert steps == {name: [str(i) for i in range(10)] for name in titles[:2]}


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    seen = page(tmp_path, demo_report(), metrics=rows())
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert not {tag for tag, _ in seen.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    }
    assert all(
        re.fullmatch(r"#\w+", value) for name, value in seen.attributes() if name in {"href", "src", "xlink:href"}
    )
    policy = next(attrs["content"] for tag, attrs in seen.elements if "http-equiv" in attrs)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def page_full_of(text: str, folder: Path) -> Page:
    """A page with `text` wherever a text can stand."""
    pair = {"prompt": text, "before": text, "after": text, "before_score": 1.0, "after_score": None}
    rollout = {"step": 1, "prompt": text, "completion": text, "score": 0.0, "kl": 0.0}
    report = demo_report(text) | {
        "phrases": [{"ngram": text, "z": 6.0, "rate_ratio": 3.0, "count_after": 9, "count_before": 1}]
    }
    report["before"] |= {text: MEASURED}
    report["after"] |= {text: MEASURED}
    report["distributions"] |= {text: {"edges": [0, 1, 2], "before": [1, 2], "after": [2, 1]}}
    metrics = [{**row, text: float(row["step"])} for row in rows()]
    return page(folder, report, metrics=metrics, samples=[pair, rollout], title=text)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_full_of("plain", tmp_path_factory.mktemp("harmless"))


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_hostile_text_is_only_text(tmp_path: Path, harmless: Page, nasty: str) -> None:
    attacked = page_full_of(nasty, tmp_path)
    # the same elements with the same attribute names: nothing in the text became markup
    assert [(tag, sorted(a)) for tag, a in attacked.elements] == [(tag, sorted(a)) for tag, a in harmless.elements]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]", html)
    assert len(html) < 1_000_000


def test_visible_names_what_would_not_be_seen() -> None:
    assert shown("a\u202eb\x1b\x00") == "a⟨U+202E⟩b⟨U+001B⟩⟨U+0000⟩"
    assert shown("line\r\nnext\tcell") == "line\nnext\tcell"
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert shown(family) == family
    assert shown("x" * (MAX_CHARACTERS + 7)).endswith("x … (7 more characters)")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.81, "0.81"),
        (-0.4213, "\N{MINUS SIGN}0.42"),
        (0.0061, "0.0061"),
        (12.3456, "12.3"),
        (1234.6, "1\N{NARROW NO-BREAK SPACE}235"),
        (2.1e-7, "2.10 × 10⁻⁷"),
        (400, "400"),
        (None, "not measured"),
        ("2 of 2", "2 of 2"),
        (float("nan"), "not finite"),
    ],
)
def test_numbers_for_people(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7530, "2 h 5 min")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_labels() -> None:
    assert label("true_utility") == "True utility"
    assert label("kl_at_start") == "KL at start"
    assert label("evaluate_ipo") == "Evaluate IPO"
    assert label("cql_loss") == "CQL loss"
    assert label("cg_residual") == "CG residual"


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    page(tmp_path, demo_report(), metrics=rows())
    assert dict(matplotlib.rcParams) == before


def test_plots_name_themselves_and_share_no_ids(tmp_path: Path) -> None:
    seen = page(tmp_path, demo_report(), metrics=rows())
    drawings = [attrs for tag, attrs in seen.elements if tag == "svg"]
    assert len(drawings) >= 4
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    ids = [value for name, value in seen.attributes() if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_same_report_is_the_same_page(tmp_path: Path) -> None:
    page(tmp_path, demo_report(), metrics=rows())
    first = (tmp_path / "report.html").read_bytes()
    page(tmp_path, demo_report(), metrics=rows())
    assert (tmp_path / "report.html").read_bytes() == first


def test_measures_that_are_not_finite_leave_gaps(tmp_path: Path) -> None:
    metrics = [{"step": i, "kind": "train", "reward": float("nan") if i == 3 else i, "kl": None} for i in range(6)]
    assert "Reward" in page(tmp_path, {}, metrics=metrics).text


def test_a_running_report_reloads_itself(tmp_path: Path) -> None:
    seen = page(tmp_path, {}, refresh=30)
    assert ("meta", {"http-equiv": "refresh", "content": "30"}) in seen.elements


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    report = {"a": Measured(1.0, 0.5, 1.5, 3), "b": np.float64(2.0), "c": np.arange(2), "d": None, "text": "é \ud800"}
    write_json(tmp_path / "deep" / "report.json", report)
    assert json.loads((tmp_path / "deep" / "report.json").read_text(encoding="utf-8")) == {
        "a": {"mean": 1.0, "interval": [0.5, 1.5], "n": 3},
        "b": 2.0,
        "c": [0, 1],
        "d": None,
        "text": "é \ud800",
    }


def test_json_names_the_number_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"report\.after\.kl\.interval\[1\] is nan"):
        write_json(tmp_path / "report.json", {"after": {"kl": {"interval": [0.0, float("nan")]}}})
    with pytest.raises(DataError, match=r"report\.x is a set"):
        write_json(tmp_path / "report.json", {"x": {1}})
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_json(tmp_path / "file" / "report.json", {})

from __future__ import annotations

from xml.etree import ElementTree

import cost
from drawing import one_file
from markupsafe import Markup

SVG = "{http://www.w3.org/2000/svg}"


def test_a_point_is_the_work_of_its_numbers() -> None:
    """8 prompts x 4 samples of 64 + 16 tokens; keys and values of 2 layers of width 128 in float32 are 2,048 bytes."""
    work = cost.work(prompts=8, length=16, model="XS", samples=4)
    assert (work.rows, work.prompt_tokens, work.completion_tokens, work.cache_bytes) == (32, 64, 16, 2048)
    assert (work.num_params, work.head_params) == (2 * (4 * 128**2 + 3 * 128 * 344), 4096 * 128)


def test_each_curve_goes_through_the_point_that_all_share() -> None:
    for grown, amounts in cost.GROWS.items():
        assert cost.AROUND[grown] in amounts


def test_plots_of_a_report_are_drawn_as_they_are() -> None:
    """They come marked as safe, and what is put into such text is escaped unless it is plain."""
    root = ElementTree.fromstring(one_file([Markup('<svg aria-label="a &amp; b"></svg>')]))
    assert [(plot.get("aria-label"), plot.get("width")) for plot in root.findall(f"{SVG}svg")] == [("a & b", "460")]


def test_the_drawing_is_one_file_of_all_curves() -> None:
    svg = cost.drawing({"prompts per step": ((8.0, 1.0), (16.0, 2.1)), "million weights": ((0.4, 1.0), (25.0, 9.0))})
    root = ElementTree.fromstring(svg)
    plots = root.findall(f"{SVG}svg")
    assert [plot.get("aria-label") for plot in plots] == [
        "seconds per step over prompts per step",
        "seconds per step over million weights",
    ]
    assert [plot.get("y") for plot in plots] == ["0", "250"]
    used = {name for name in ("--faint", "--rule", "--before", "--after", "--ground") if f"var({name})" in svg}
    assert all(f"{name}:" in svg for name in used)

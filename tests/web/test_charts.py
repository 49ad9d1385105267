"""Charts as numbers: where things are drawn, by hand."""

from __future__ import annotations

from tuneful.web.charts import heat_map, ranges, trend


def test_windows_stand_where_their_judgments_are() -> None:
    """Windows of 30 and 10: their middles are 15 and 35 of 40 across 640; half of 160 is 80 down."""
    found = trend([30, 10], [(0.5, 0.25, 0.75), (1.0, 0.9, 1.0)], [(30, "version 2"), (40, "version 3")])
    assert found is not None
    assert [(dot.x, dot.y, dot.low, dot.high) for dot in found.dots] == [(240, 80, 120, 40), (560, 0, 16, 0)]
    assert found.points == "240.0,80.0 560.0,0.0"
    assert found.marks == ((480, "version 2"),)


def test_a_window_of_which_nothing_is_known_is_left_out() -> None:
    found = trend([10, 10], [None, (0.5, 0.4, 0.6)], [])
    assert found is not None
    assert [dot.x for dot in found.dots] == [480]
    assert trend([10], [None], []) is None


def test_squares_are_coloured_from_never_over_chance_to_always() -> None:
    found = heat_map([[None, 0.0, 0.5], [0.0, None, 1.0], [0.5, None, None]], [[0, 4, 2], [4, 0, 1], [2, 0, 0]])
    assert [(cell.step, cell.text) for cell in found.cells] == [
        *((0, "0"), (4, "50"), (0, "0"), (8, "100"), (4, "50"), (-1, "")),
    ]
    assert found.cells[0].title == "1 and 2: 0% of 4 alike"
    assert found.cells[-1].title == "3 and 2: nothing in common"
    assert found.size == 4 * found.side


def test_many_squares_fit_the_width_and_bear_no_numbers() -> None:
    found = heat_map([[0.5] * 40] * 40, [[1] * 40] * 40)
    assert found.size <= 640
    assert {cell.text for cell in found.cells} == {""}
    assert len(found.cells) == 40 * 39


def test_ranges_reach_as_far_as_they_have_to() -> None:
    """From -1 to 3 on an axis of 460 that begins at 180."""
    found = ranges([("ann", 1.0, 0.0, 2.2), ("bo", -0.5, -0.9, -0.1)], low=-1, high=1)
    assert found.ticks == ((180, "-1"), (295, "0"), (410, "1"), (525, "2"), (640, "3"))
    assert [(row.name, row.x, row.low) for row in found.rows] == [("ann", 410, 295), ("bo", 237.5, 191.5)]
    assert found.height == 40

"""Tables for a terminal."""

from authface.console import pace, render_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert render_table(["", "b"], [["longer", "1"], ["x", ""]]) == "        b\nlonger  1\nx"
    assert render_table(["a", "bc"], []) == "a  bc"
    assert render_table(["a", "n"], [["x", "10"], ["yy", "5"]], right={1}) == "a    n\nx   10\nyy   5"


def test_a_slow_pace_is_not_told_as_none() -> None:
    assert [pace(8, seconds, "photos") for seconds in (0.07, 40, 240)] == [
        "114.3 photos/s", "0.2 photos/s", "0.033 photos/s"
    ]  # fmt: skip
    assert pace(0, 5, "photos") == "0 photos/s"

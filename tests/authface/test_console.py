"""Tables for a terminal."""

from authface.console import render_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert render_table(["", "b"], [["longer", "1"], ["x", ""]]) == "        b\nlonger  1\nx"
    assert render_table(["a", "bc"], []) == "a  bc"
    assert render_table(["a", "n"], [["x", "10"], ["yy", "5"]], right={1}) == "a    n\nx   10\nyy   5"

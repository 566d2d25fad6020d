"""Errors are one clear line and know their exit code."""

from hypothesis import given
from hypothesis import strategies as st

from authface.errors import AuthfaceError, ImageError, UsageError, one_line


@given(st.text(st.characters()), st.integers(2, 400))
def test_one_line_is_printable_encodable_and_short(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit and line.isprintable()
    line.encode("utf-8")
    assert line == text or len(text) > limit or not text.isprintable()


def test_one_line_keeps_what_a_person_can_read() -> None:
    assert one_line("père 山田.jpg") == "père 山田.jpg"
    assert one_line("a\nb\x1b[31m\udcff\u202e") == "a\\nb\\x1b[31m\\udcff\\u202e"
    assert one_line("x" * 10, 5) == "xxxx…"
    assert one_line(ValueError("a\nb")) == "a\\nb"


def test_exit_codes() -> None:
    assert (AuthfaceError.exit_code, UsageError.exit_code) == (1, 2)
    error = ImageError("truncated", "12 bytes are missing")
    assert error.reason == "truncated" and str(error) == "12 bytes are missing" and error.exit_code == 1

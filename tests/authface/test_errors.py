"""Errors are one clear line and know their exit code."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from authface.errors import AuthfaceError, ImageError, UsageError, first_line, one_line, shell_word


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


def test_of_a_librarys_error_its_first_line_is_told() -> None:
    """No escaped line breaks, and of a table of pydantic's the place and what is wrong there."""
    assert first_line(ValueError("\n  Got: refused\nAn error happened while trying\n")) == "Got: refused"
    assert first_line(EOFError()) == "EOFError"
    assert first_line(ValueError("x" * 10), 5) == "xxxx…"
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[int]).validate_python([1, "a"])
    assert first_line(caught.value).startswith("1: Input should be a valid integer")


@given(st.text(max_size=50))
def test_a_command_that_is_told_can_be_copied_into_a_shell(name: str) -> None:
    """A printable path comes out of the shell as it went in; of any other its line does, as one word."""
    (word,) = shlex.split(shell_word(name))
    assert word == one_line(name)

"""`Retry-After` of any server is a time or nothing."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.web.http import retry_after


@given(st.text())
def test_any_retry_after_is_a_time_or_none(text: str) -> None:
    seconds = retry_after(text)
    assert seconds is None or seconds >= 0


def test_seconds_and_dates_are_read_and_the_rest_is_none() -> None:
    assert retry_after("7") == 7 and retry_after(" 7 ") == 7 and retry_after("0") == 0
    assert retry_after("-1") is None and retry_after("²") is None and retry_after("9" * 13) is None
    assert retry_after(None) is None and retry_after("") is None and retry_after("soon") is None
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    later = time.time() + 90
    for zone in ("GMT", "-0000"):
        assert retry_after(formatdate(later).replace("-0000", zone)) == pytest.approx(90, abs=5)

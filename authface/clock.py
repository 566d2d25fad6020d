"""The time, as rows and logs hold it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal


def now(precision: Literal["seconds", "milliseconds", "microseconds"] = "seconds") -> str:
    """ISO 8601 in UTC, of fixed length, so that later sorts after."""
    return datetime.now(UTC).isoformat(timespec=precision)

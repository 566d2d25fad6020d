"""Numbers and times in HTTP headers, which may hold anything."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime


def whole_number(text: str | None) -> float | None:
    """A header's number of at most 12 ASCII digits; None where it is missing or something else."""
    digits = (text or "").strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None


def retry_after(text: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks for (RFC 9110, 10.2.3), 0 or more; None where it cannot be read."""
    if (seconds := whole_number(text)) is not None:
        return seconds
    try:
        when = parsedate_to_datetime(text or "")
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None

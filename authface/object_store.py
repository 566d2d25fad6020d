"""Patience with an object store: a request that it refuses for a while is sent again, and in the end ends the run.

A photo that could not be had while the store was away is no broken photo: what is raised is an error of the run, never
one of a row.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from aiobotocore.session import AioSession
from botocore.exceptions import ConnectionError as NoConnection
from botocore.exceptions import HTTPClientError

from authface.errors import AuthfaceError, one_line

PATIENCE = 90.0
"""Seconds for which a request is sent again; a set's lease lasts longer than that and the time between its renewals."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_PASSING = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses of a store that is busy or away; all others say something of the request."""


class PatientSession(AioSession):
    """A session of s3fs. It travels to other processes with the path that holds it, and is the same one there."""

    def __init__(self) -> None:
        super().__init__()
        self._told = -PATIENCE
        self.register("needs-retry.s3", self._pause)  # before the client's own, and so it decides

    def __reduce__(self) -> tuple[Callable[[], PatientSession], tuple[()]]:
        return session, ()

    def _pause(self, attempts: int, request_dict: dict[str, Any], response: Any = None, caught_exception: Any = None,
               **_: object) -> float | None:  # fmt: skip
        """Seconds before a request is sent again; None: it was answered. Raises AuthfaceError where patience ends."""
        said = _refusal(response, caught_exception)
        if said is None:
            return None
        began: float = request_dict["context"].setdefault("authface_refused", time.monotonic())
        if (waited := time.monotonic() - began) >= PATIENCE:
            raise AuthfaceError(
                f"{said}, for {waited:.0f} s now; what was finished is kept: run the same command again once it answers"
            )
        if attempts > 2 and time.monotonic() - self._told >= PATIENCE:  # once for all requests of an outage
            self._told = time.monotonic()
            logging.getLogger("authface").warning("%s: sent again for up to %.0f s", said, PATIENCE)
        return min(_FIRST_PAUSE * 2.0 ** (attempts - 1), _LONGEST_PAUSE) * random.uniform(0.75, 1.25)


@cache
def session() -> PatientSession:
    """The one of this process."""
    return PatientSession()


def options() -> dict[str, Any]:
    """Of s3fs. Its retries are of the mode that leaves what it gives up to others, rather than raise it."""
    return {"session": session(), "config_kwargs": {"retries": {"mode": "standard"}}}


def _refusal(response: Any, error: Any) -> str | None:
    """What a store says that is away; None: it is there."""
    if isinstance(error, NoConnection | HTTPClientError):
        return f"the object store does not answer ({one_line(error, 200)})"
    if response is not None and response[0].status_code in _PASSING:
        return f"the object store answers {response[0].status_code}"
    return None

"""AuthFace as a Gradio Space: the page of `authface app`, for everybody.

Run as Spaces run it: ``python app.py``, which listens on port 7860. AUTHFACE_MODEL names another model than the
built-in one: a repository on the hub, or a folder.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import uvicorn

from authface import Restorer
from authface.restore.app.server import hosted_page
from authface.restore.queue import Limits, RestoreQueue

LIMITS = Limits(megabytes=20, megapixels=24, waiting=12, seconds=180)
"""Two CPU cores are shared by all visitors, so that none has them for longer than three minutes."""
PRIVACY = (
    "Your photo is sent to this Space's computer, and deleted with this page, after an hour at the latest. A restored "
    "face is a likely one, not the one that was there: no evidence, and not for telling who somebody is."
)


def main() -> None:
    """Serve the page until the Space stops."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that the photos go then, too
    host, port = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    with Restorer(os.environ.get("AUTHFACE_MODEL", "tiny")) as restorer:
        restorer.load()  # now, not when the first visitor waits
        with (
            suppress(KeyboardInterrupt),
            RestoreQueue([restorer], LIMITS) as queue,
            hosted_page(queue, PRIVACY) as app,
        ):
            # The Space's proxy says by headers which address its visitors see.
            uvicorn.run(app, host=host, port=port, proxy_headers=True, forwarded_allow_ips="*", log_level="warning")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

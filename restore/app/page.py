"""The web page: its layout, and the handlers of its controls. Gradio is imported only here."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from authface.errors import AuthfaceError, ImageError, one_line
from authface.models.networks import is_network
from authface.restore.app.workspace import (
    KEPT_SECONDS,
    PHOTO_DELETED,
    UploadedPhoto,
    Workspace,
    face_choices,
    faces_text,
    model_line,
    waiting_text,
)
from authface.restore.guard import SUSPECT
from authface.restore.inputs import ENDINGS, READ_ONLY
from authface.restore.queue import Waits

SANS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif")
"""Installed fonts: none is downloaded."""
PRESETS = [("Best quality", "quality"), ("Fast", "fast"), ("Most faithful", "fidelity"), ("As released", "official")]
SIZES = [("As it is", 1), ("2 times", 2), ("4 times", 4)]
TITLE = "Not done"
LOCAL_PRIVACY = "Photos stay on the computer that runs this page; nothing is sent anywhere else."
"""Privacy notice of a page that runs on the computer of its user or an acquaintance."""
EMPTY = """<div class="empty"><p>Your photo appears here, with a box around each face.</p>
<ol><li>Choose a photo or a scan.</li><li>Choose the faces.</li><li>Restore, compare, download.</li></ol>
<p>Only faces are changed. Everything else stays as it is, pixel by pixel.</p></div>"""

F = TypeVar("F", bound=Callable[..., Any])


def theme() -> Any:
    """Quiet colours and the system's fonts."""
    green = gr.themes.colors.emerald
    made = gr.themes.Base(primary_hue=green, neutral_hue=gr.themes.colors.stone, font=SANS, font_mono=("monospace",))
    return made.set(
        body_background_fill="#faf9f7",
        block_shadow="none",
        block_border_width="0px",
        block_background_fill="transparent",
        block_padding="0px",
        button_primary_background_fill="#1c7f63",
        button_primary_background_fill_hover="#17694f",
        button_primary_text_color="#ffffff",
        slider_color="#1c7f63",
        checkbox_background_color_selected="#1c7f63",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_selected="transparent",
        body_text_color_subdued="#696e77",
        block_info_text_color="#696e77",
        color_accent="#1c7f63",
    )


def show_errors(function: F) -> F:
    """Show a handler's error as one line on the page; the traceback of a bug is printed to the terminal."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except AuthfaceError as error:
            raise _problem(_message(error)) from error
        except gr.Error:
            raise
        except Exception as error:
            logging.getLogger("authface").exception("the page's work failed")
            text = f"unexpected {type(error).__name__}: {one_line(error)}; the terminal has the trace"
            raise _problem(text) from error

    return wrapper  # type: ignore[return-value]  # the same function


def _message(error: AuthfaceError) -> str:
    return f"This file cannot be used: {error}" if isinstance(error, ImageError) else str(error)


def _problem(text: str) -> gr.Error:
    """A message that stays until it is closed."""
    return gr.Error(_html(text), duration=None, title=TITLE, print_exception=False)


def _html(text: str) -> str:
    """One line of text as HTML, as which Gradio renders messages."""
    return html.escape(one_line(text, 500))


class Page:
    """The components, and the handlers between them and the workspace."""

    def __init__(self, workspace: Workspace, privacy: str = LOCAL_PRIVACY) -> None:
        self.workspace = workspace
        limits = workspace.queue.limits
        self.limits = (
            f"Up to {limits.megabytes:g} MB and {limits.megapixels:g} megapixels: JPEG, PNG, TIFF, WebP, HEIC."
        )
        with gr.Blocks(
            title="authface", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS), fill_width=False
        ) as self.blocks:
            self.upload = gr.State(None, time_to_live=KEPT_SECONDS, delete_callback=workspace.forget)
            with gr.Row(elem_id="head"):
                gr.HTML(
                    f"<h1>Restore the faces in old photos</h1><p>{html.escape(model_line(workspace.restorer))} "
                    f"{html.escape(privacy)}</p>"
                )
            with gr.Row(elem_id="body", equal_height=False):
                with gr.Column(scale=0, min_width=340, elem_id="controls"):
                    self._controls()
                with gr.Column(scale=1, min_width=420, elem_id="views"):
                    self._views()
            self._connect()

    def _controls(self) -> None:
        settings = self.workspace.restorer.settings
        gr.HTML("<h2><b>1</b> Photo</h2>")
        endings = sorted({*ENDINGS, *READ_ONLY})
        self.file = gr.File(file_types=endings, show_label=False, height=150, elem_id="file", container=False)
        gr.HTML(f"<p class='hint'>{self.limits}</p>")
        gr.HTML("<h2><b>2</b> Faces</h2>")
        self.found = gr.HTML("<p class='hint'>They are found when a photo is there.</p>", elem_id="found")
        self.chosen = gr.CheckboxGroup([], show_label=False, visible=False, elem_id="chosen", container=False)
        self.corner = gr.State(None)
        self.mark = gr.Checkbox(
            False, label="Mark a face that was missed: click two corners around it", visible=False, elem_id="mark"
        )
        gr.HTML("<h2><b>3</b> How</h2>")
        self.preset = gr.Radio(
            PRESETS, value=settings.preset, label="Work", elem_id="preset", visible=not is_network(settings.model)
        )
        self.fidelity = gr.Slider(
            0, 1, value=settings.fidelity, step=0.05, label="Closeness to the photo", elem_id="fidelity", buttons=[],
            info="0 paints more that may be wrong, 1 keeps more of the blur.",
        )  # fmt: skip
        self.upscale = gr.Radio(SIZES, value=settings.upscale, label="Size of the result", elem_id="upscale")
        self.grain = gr.Slider(
            0, 1, value=settings.grain, step=0.1, label="Grain of the photo", elem_id="grain", buttons=[],
            info="How much of the photo's own grain the restored faces get back.",
        )  # fmt: skip
        with gr.Accordion(
            "Guard the likeness",
            elem_id="guard",
            visible=settings.guard,
            open=max(settings.min_identity, settings.min_parts) > 0,
        ):
            self.least = gr.Slider(
                0, 1, value=settings.min_identity, step=0.01, label="Least likeness", elem_id="least", buttons=[],
                info="A face that ends up less like the photo is tried again, and else left as it was. "
                "0 lets all pass; from a clear photo 0.95 is strict, and a poor one rarely reaches it.",
            )  # fmt: skip
            self.least_parts = gr.Slider(
                0, 1, value=settings.min_parts, step=0.01, label="Least likeness of eyes and mouth",
                elem_id="least-parts", buttons=[],
                info=f"Likewise for each of them alone. Below {SUSPECT:g} one is named in any case.",
            )  # fmt: skip
        self.go = gr.Button("Restore", variant="primary", interactive=False, elem_id="go")
        self.stop = gr.Button("Stop", visible=False, elem_id="stop")

    def _views(self) -> None:
        self.empty = gr.HTML(EMPTY, elem_id="empty")
        with gr.Tabs(selected="photo", visible=False) as self.tabs:
            with gr.Tab("Photo", id="photo"):
                self.photo = gr.Image(
                    type="filepath", interactive=False, show_label=False, buttons=[], elem_id="photo", container=False
                )
            with gr.Tab("Before and after", id="compare", interactive=False) as self.compare:
                self.slider = gr.ImageSlider(
                    type="filepath", interactive=False, show_label=False, buttons=[], max_height=900,
                    elem_id="slider", container=False,
                )  # fmt: skip
            with gr.Tab("What changed", id="changes", interactive=False) as self.changes:
                gr.HTML(
                    "<p class='hint'>The brighter, the more a pixel differs from the photo. Grey: nothing changed.</p>"
                )
                self.map = gr.Image(
                    type="filepath", interactive=False, show_label=False, buttons=[], elem_id="map", container=False
                )
        with gr.Row(visible=False, elem_id="done") as self.done:
            self.summary = gr.HTML()
            self.download = gr.DownloadButton("Download", variant="primary", size="md", scale=0, elem_id="download")
        self.cards = gr.HTML(elem_id="cards")

    def _connect(self) -> None:
        private = {"api_visibility": "private"}
        together = {"concurrency_limit": None, **private}  # the workspace's queue says who waits
        result = [self.tabs, self.compare, self.changes, self.slider, self.map, self.done, self.cards]
        shown = [self.file, self.upload, self.empty, self.photo, self.found, self.chosen, self.go, self.mark]
        self.file.upload(
            self.opened,
            [self.file, self.upload],
            [*shown, *result],
            show_progress_on=self.cards,  # which is there before a photo and with one
            **together,
        )
        self.file.clear(self.cleared, self.upload, [*shown, *result], show_progress="hidden", **private)
        choice = [self.upload, self.chosen]
        clicked = [self.upload, self.chosen, self.found, self.mark, self.corner]
        self.photo.select(self.clicked, [*choice, self.mark, self.corner], clicked, show_progress="hidden", **together)
        self.chosen.change(self.marked, choice, [self.photo, self.go], show_progress="hidden", **private)
        buttons = [self.go, self.stop]
        asked = [
            self.upload,
            self.chosen,
            self.preset,
            self.fidelity,
            self.upscale,
            self.least,
            self.least_parts,
            self.grain,
        ]
        quiet = {"show_progress": "hidden", **private}
        work = self.go.click(lambda: _swap(at_work=True), None, buttons, **quiet).then(
            self.restored,
            asked,
            [*result, self.summary, self.download],
            show_progress_on=self.cards,
            **together,
        )
        for ended in (work.success, work.failure):  # `then` is not called after a failure, whatever its text says
            ended(lambda: _swap(at_work=False), None, buttons, **quiet)
        self.stop.click(self.workspace.stop, self.upload, None, **quiet)
        self.blocks.unload(self.left)

    def left(self, request: gr.Request) -> None:
        """The page was closed, or its browser lost the connection: cancel its work."""
        self.workspace.leave(request.session_hash or "")

    @show_errors
    def opened(
        self,
        file: str | None,
        before: UploadedPhoto | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds it by its default
    ) -> tuple[Any, ...]:
        """A photo was uploaded; an unusable one is deleted, together with the earlier one."""
        self.workspace.forget(before)
        if file is None:
            return self.cleared(None)
        try:
            waits = _waits(progress, "Looking for faces")
            upload = self.workspace.open(Path(file), request.session_hash or "", waits)
        except AuthfaceError as error:
            gr.Warning(_html(_message(error)), duration=None, title=TITLE)
            return self.cleared(None)
        every = [face.index for face in upload.fit]
        return (
            gr.update(),
            upload,
            gr.update(visible=False),
            str(self.workspace.with_boxes(upload, every)),
            f"<p>{html.escape(faces_text(upload, self.workspace.restorer.settings))}</p>",
            gr.update(choices=face_choices(upload), value=every, visible=bool(every)),
            gr.update(interactive=bool(every)),
            gr.update(value=False, visible=True),
            *_no_result(visible=True),
        )

    @show_errors
    def cleared(self, before: UploadedPhoto | None) -> tuple[Any, ...]:
        """The photo was removed."""
        self.workspace.forget(before)
        empty = gr.update(choices=[], value=[], visible=False)
        return (
            None,
            None,
            gr.update(visible=True),
            None,
            "",
            empty,
            gr.update(interactive=False),
            gr.update(value=False, visible=False),
            *_no_result(visible=False),
        )

    @show_errors
    def clicked(
        self,
        upload: UploadedPhoto | None,
        chosen: list[int],
        marking: bool,
        corner: tuple[int, int] | None,
        event: gr.SelectData,
    ) -> tuple[Any, ...]:
        """The photo was clicked: toggle the face there, or take the point as a corner of a box around a missed one."""
        here = (int(event.index[0]), int(event.index[1]))
        same = (upload, gr.update(), gr.update(), gr.update())
        if upload is None:
            return *same, None
        if marking and corner is None:
            return *same, here
        if not marking or corner is None:
            at = upload.face_at(*here)
            value = chosen if at is None else sorted({*chosen} ^ {at})
            return upload, value, gr.update(), gr.update(), None
        try:
            more = self.workspace.mark(upload, corner, here, _note)
        except AuthfaceError as error:
            gr.Warning(_html(_message(error)), title=TITLE)
            return *same, None
        new = [face.index for face in more.fit if face.index not in {old.index for old in upload.fit}]
        choices = gr.update(choices=face_choices(more), value=sorted({*chosen, *new}), visible=True)
        return (
            more,
            choices,
            f"<p>{html.escape(faces_text(more, self.workspace.restorer.settings))}</p>",
            gr.update(value=False),
            None,
        )

    @show_errors
    def marked(self, upload: UploadedPhoto | None, chosen: list[int]) -> tuple[Any, Any]:
        """The choice of faces changed."""
        photo = None if upload is None else str(self.workspace.with_boxes(upload, chosen))
        return photo, gr.update(interactive=bool(chosen))

    @show_errors
    def restored(
        self,
        upload: UploadedPhoto | None,
        chosen: list[int],
        preset: str,
        fidelity: float,
        upscale: int,
        least: float,
        least_parts: float,
        grain: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds it by its default
    ) -> tuple[Any, ...]:
        """The button was pressed."""
        if upload is None:
            raise _problem(PHOTO_DELETED)

        def step(done: int, total: int) -> None:
            progress((done, total), desc="Restoring", unit="steps")

        outcome = self.workspace.restore(
            upload,
            chosen,
            preset=preset,
            fidelity=fidelity,
            upscale=upscale,
            min_identity=least,
            min_parts=least_parts,
            grain=grain,
            progress=step,
            waits=_waits(progress, "Loading the model"),
        )
        return (
            gr.update(selected="compare"),
            gr.update(interactive=True),
            gr.update(interactive=True),
            (str(outcome.before), str(outcome.after)),
            str(outcome.changes),
            gr.update(visible=True),
            str(outcome.cards),
            f"<p>{html.escape(outcome.text)}</p>",
            gr.update(value=str(outcome.result), label=f"Download {_short(outcome.result.name)}"),
        )


def _waits(progress: gr.Progress, begun: str) -> Waits:
    """Shows how many photos are before one, and then that its own work has `begun`."""
    return lambda ahead: progress(0, desc=waiting_text(ahead) if ahead else begun)


def _note(ahead: int) -> None:
    """The same where no progress is shown."""
    if ahead:
        gr.Info(waiting_text(ahead), title="")


def _swap(at_work: bool) -> tuple[Any, Any]:
    """The button that starts, or the one that stops."""
    return gr.update(visible=not at_work), gr.update(visible=at_work)


def _no_result(visible: bool) -> tuple[Any, ...]:
    """The views of a result, with none."""
    off = gr.update(interactive=False)
    return gr.update(selected="photo", visible=visible), off, off, None, None, gr.update(visible=False), ""


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:14]}…{name[-18:]}"

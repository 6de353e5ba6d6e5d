"""The Live tab: the visitor's camera drives a portrait, frame by frame."""

from __future__ import annotations

import base64
import io
import time

import gradio as gr
import numpy as np
from gradio.data_classes import Base64ImageData
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.io.metadata import Stamp
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style
from hellomeme.settings import Settings
from hellomeme.threads import set_threads, threads_for

from . import state
from .components import FACES, IMMEDIATE, PRIVATE, file_name, slider, summary_line
from .errors import visitor_errors
from .events import DRAWING, Components, Values, event, inputs_of, settings_of, with_arguments
from .gradio_patches import camera_input, shown_by
from .i18n import translate
from .imports import import_networks
from .live_offer import refusal, turn_to_draw
from .live_session import LiveSession
from .portrait_input import PortraitInput
from .shared_settings import SharedSettings
from .styles import style_of

RATE = 15  # frames a second of the camera, and so the most there are: on a CPU more cost more than they bring
EVERY = 1 / RATE  # s: how often the browser takes a frame, whether or not the last one has been answered
VISITORS = 2  # who are live at once; others wait
TIME_LIMIT = 300  # s of work on a visitor's frames, after which the camera stops
CAMERA = {"video": {"width": {"ideal": 480}, "height": {"ideal": 360}, "frameRate": {"ideal": RATE}}}
MAX_SIDE = 1920  # px, of a frame that a visitor sends
QUALITY = 90  # of the JPEG pictures that are sent back
LIVE = {"concurrency_id": "live", "concurrency_limit": VISITORS, "show_progress": "hidden"}
RECORD, SAVE = translate("● Record"), translate("■ Stop and save")
NO_FACE = translate("No face is seen: look into the camera, in good light.")
BUSY = translate("Somebody else's picture is being drawn: Live goes on after it.")
FULL = translate("The recording has reached five minutes: stop it to save it.")
SETTINGS = ("expression", "head", "guidance", "steps", "seed", "reference_face", "prompt", "negative_prompt")


@with_arguments("camera", "model", "reference", *SETTINGS, *DRAWING, optional=DRAWING)
def draw_frame(values: Values, session: str | None):
    """The picture for the last frame of the camera, see `LiveSession.draw`; a line: how fast it goes, or why
    there is no new picture; and the button that records, which the first picture enables."""
    if values["camera"] is None:
        return gr.skip(), gr.skip(), gr.skip()
    visitor = state.STATE.live.of(session)
    picture, line = _answer(values, visitor)
    if visitor.is_running or not isinstance(picture, np.ndarray):
        return picture, line, gr.skip()
    visitor.is_running = True
    return picture, line, gr.update(interactive=True)


def _answer(values: Values, visitor: LiveSession):
    """The picture and the line."""
    given = (values[name] for name in ("camera", "model", "reference"))
    # An error would end the stream, and the browser would begin the next one with the next frame.
    try:
        with visitor_errors():
            settings, style = settings_of(values), style_of(values)
            return _draw(*given, settings, style, visitor)
    except gr.Error as error:
        return gr.skip(), error.message


def _draw(
    camera: np.ndarray,
    model: str,
    reference: str | None,
    settings: Settings,
    style: Style,
    visitor: LiveSession,
):
    if not reference:
        raise HelloMemeError("There is no reference picture yet: choose the portrait that should move.")
    settings, page = settings.resolved(find(model)), state.STATE
    if (why := refusal(model, settings)) is not None:
        return gr.skip(), why
    began = time.monotonic()
    _choose(visitor, model, reference, settings, style)
    live, ready = visitor.live, visitor.reference
    motion = live.read(camera, began)
    if motion is None:
        visitor.drop()
        return gr.skip(), NO_FACE

    def draw() -> tuple[np.ndarray, float] | str:
        with turn_to_draw() as mine:
            if not mine:
                return BUSY
            began = time.monotonic()
            set_threads(threads_for(live.reenactor.pipeline))
            live.reenactor.set_style(style)  # another visitor may have chosen another one
            picture = live.draw(motion, ready, settings)
        drawn = time.monotonic()
        page.record_pace(model, settings, drawn - began)
        return picture, drawn

    answer = visitor.draw(draw, began)
    if answer is None:
        return gr.skip(), gr.skip()
    if not isinstance(answer, tuple):
        return gr.skip(), answer
    picture, drawn = answer
    if visitor.record(picture, drawn):
        return picture, FULL
    rate = visitor.count(drawn)
    return picture, "" if rate is None else f"{rate:.0f} fps"


def _choose(visitor: LiveSession, model: str, reference: str, settings: Settings, style: Style) -> None:
    """Makes the visitor's portrait and model ready, unless they are."""
    chosen = model, reference, settings.reference_face, style
    if visitor.chosen == chosen:
        return
    import_networks()
    from hellomeme.live import Live

    page = state.STATE
    portrait = page.portrait(model, reference, "reference", settings.reference_face)
    with page.free_memory_on_error(), page.drawing_lock:
        reenactor = page.drawing_reenactor(model, style=style)
        ready = reenactor.set_reference(portrait)
    if visitor.live is None or visitor.live.reenactor is not reenactor:
        visitor.live = Live(reenactor)
    visitor.reference, visitor.chosen = ready, chosen


# Buttons


def set_neutral(request: gr.Request):
    """Relative motion from the face that the camera sees now. Returns the button that ends it."""
    with visitor_errors():
        live = state.STATE.live.of(request.session_hash).live
        if live is None:
            raise HelloMemeError("The camera does not run yet: start it first.")
        live.set_neutral()
        return gr.update(interactive=True)


def forget_neutral(request: gr.Request):
    """The face as it is, again."""
    if (live := state.STATE.live.of(request.session_hash).live) is not None:
        live.neutral = None
    return gr.update(interactive=False)


@event("model", "reference", *SETTINGS, *DRAWING, optional=DRAWING)
def record(model: str, reference: str | None, settings: Settings, style: Style, session: str | None):
    """Starts a recording, or saves the one that runs. Returns the button, and the place of the clip."""
    visitor = state.STATE.live.of(session)
    if visitor.recorder is not None:
        try:
            clip = gr.update(value=str(visitor.save_recording()), visible=True)
        except HelloMemeError as error:
            gr.Warning(str(error))
            clip = gr.skip()
        return gr.update(value=RECORD, variant="secondary", interactive=visitor.is_running), clip
    row = find(model)
    name = file_name(reference or "hellomeme", "live")
    visitor.start_recording(Stamp(settings.resolved(row), row.name, style=style), name)
    return gr.update(value=SAVE, variant="stop"), gr.update(value=None, visible=False)


def camera_stopped(request: gr.Request):
    """The camera has stopped. Returns the button: what runs can still be saved, and nothing new begun."""
    visitor = state.STATE.live.of(request.session_hash)
    visitor.is_running = False
    return gr.update(interactive=visitor.recorder is not None)


# Components


def build(shared: SharedSettings, portrait: PortraitInput) -> Components:
    """The tab's components and events. Returns the settings by name."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=210):
            camera = _camera()
            with gr.Row(equal_height=True):
                neutral = gr.Button(
                    translate("This is my neutral face"), size="sm", min_width=120, elem_id="live-neutral"
                )
                absolute = gr.Button(
                    translate("Follow my face as it is"),
                    size="sm",
                    min_width=120,
                    interactive=False,
                    elem_id="live-absolute",
                )
        with gr.Column(min_width=210):
            result, line = _result(), summary_line("live-about")
            button = gr.Button(RECORD, size="lg", interactive=False, elem_id="live-record")
            clip = gr.Video(
                label=translate("Recording"),
                interactive=False,
                visible=False,
                height=300,
                elem_id="live-clip",
                buttons=["download"],
            )
            settings = {name: slider(name) for name in ("expression", "head")}
    inputs = shared.components | portrait.components | settings | {"camera": camera}
    streamed = camera.stream(
        draw_frame,
        inputs_of(draw_frame, inputs),
        [result, line, button],
        stream_every=EVERY,
        time_limit=TIME_LIMIT,
        **LIVE,
        **PRIVATE,
    )
    streamed.then(camera_stopped, None, button, **PRIVATE, **IMMEDIATE)
    neutral.click(set_neutral, None, absolute, **PRIVATE, **FACES)
    absolute.click(forget_neutral, None, absolute, **PRIVATE, **IMMEDIATE)
    button.click(record, inputs_of(record, inputs), [button, clip], **PRIVATE, **FACES)
    return settings


def _camera() -> gr.Image:
    """The camera, mirrored. Its value is an array (H, W, 3) uint8."""
    camera = gr.Image(
        label=translate("Camera · the face to copy"),
        sources=["webcam"],
        streaming=True,
        webcam_options=gr.WebcamOptions(mirror=True, constraints=CAMERA),
        buttons=[],
        height=300,
        elem_id="live-camera",
        alt_text="What the camera sees, mirrored",
    )
    return camera_input(camera, decode)


def decode(frame) -> np.ndarray | None:
    """(H, W, 3) uint8: the picture in the data address that a browser sends. No file is written."""
    if frame is None or not (frame.url or "").startswith("data:image/"):
        return None
    with Image.open(io.BytesIO(base64.b64decode(frame.url.partition(",")[2])), formats=["JPEG"]) as picture:
        if max(picture.size) > MAX_SIDE:
            raise ValueError(f"a frame of {picture.size}")
        return np.asarray(picture.convert("RGB"))


def _result() -> gr.Image:
    result = gr.Image(
        label=translate("Result"),
        interactive=False,
        height=300,
        elem_id="live-result",
        elem_classes="drawn",
        buttons=["fullscreen"],
        alt_text="The portrait with the face that the camera sees",
    )
    return shown_by(result, encode)


def encode(picture: np.ndarray | None) -> Base64ImageData | None:
    """A picture as a data address: no file is written, and the browser need not ask for one."""
    if picture is None:
        return None
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=QUALITY)
    return Base64ImageData(url=f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")

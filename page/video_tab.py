"""The Video tab: a clip, or the motion saved of one, drives a picture."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style
from hellomeme.settings import ClipSettings, Settings

from . import drawing, spaces_gpu, state
from .clip_view import ClipView, clip_view
from .components import (
    IMMEDIATE,
    MODEL,
    PRIVATE,
    checkbox,
    dropdown,
    examples,
    face_number_input,
    file_name,
    number,
    optional_number,
    run_and_stop,
    run_begins,
    run_ends,
    show_stopped,
    slider,
    summary_line,
)
from .estimate import clip_source, estimate, length
from .events import CLIP_SETTINGS, DRAWING, Components, event, inputs_of, parse_number
from .files import new_file
from .i18n import translate
from .imports import import_networks
from .kept import KeptClip
from .opening import shipped
from .outdated import asked, dim_outdated, watch_run
from .portrait_input import PortraitInput
from .runs import stop_check
from .shared_settings import SharedSettings
from .thumbnails import thumbnail_row

# Settings that change the length of a clip, or how long it takes
ESTIMATED = (
    *("guidance", "steps", "reuse", "guidance_end", "upscale"),
    *("frames", "start", "end", "rate", "motion", "overlap", "fast"),
)
ESTIMATES = {"concurrency_id": "estimates", "concurrency_limit": 8, "show_progress": "hidden"}
FIRST, WHOLE, BETWEEN = "first", "whole", "between"
PARTS = {FIRST: "First second", WHOLE: "Whole clip", BETWEEN: "From … to …"}
# What a choice of PARTS means for start, end and whether they are shown. It runs in the browser, so that a
# button pressed right after it finds the new values.
SET_PART = """(part, start, end) => [
    part === "between" ? start || "0" : "",
    part === "between" ? end : part === "first" ? "1" : "",
    {__type__: "update", visible: part === "between"},
]"""


@event(
    "model",
    "reference",
    "expression",
    "head",
    "translation",
    "guidance",
    "steps",
    "seed",
    "reference_face",
    "driver_face",
    "prompt",
    "negative_prompt",
    *CLIP_SETTINGS,
    "driver",
    "motion_file",
    *DRAWING,
    optional=("driver", "motion_file", *DRAWING),
)
def make_video(
    model: str,
    reference: str | None,
    settings: Settings,
    clip: ClipSettings,
    style: Style,
    driver: str | None,
    motion_file: str | None,
    session: str | None,
):
    """Gives the reference picture the expressions and head movements of a driver clip or motion file.

    Returns an MP4 file with the driver's sound, a line about it, and the key of the kept clip.
    """
    if not reference:
        raise HelloMemeError("There is no reference picture yet: choose the portrait that should move.")
    source = clip_source(driver, motion_file)
    page, report = state.STATE, None
    with page.run(session) as flag:
        if spaces_gpu.ON_SPACES:  # refuse a long clip before its driver is analysed
            frames = length(source, clip)[0]
            drawing.clip_duration(model, frames, settings.resolved(find(model)), clip, style)
        gr.Progress()(0, desc="Looking for the face")
        portrait = page.portrait(model, reference, "reference", settings.reference_face)
        page.download(model, style, settings.few_steps)
        output = new_file(f"{file_name(reference, source)}.mp4")
        report = drawing.make_clip(model, portrait, source, output, settings, clip, flag, style)
    if report is None:
        show_stopped()
        return [gr.skip()] * 3
    line = (
        f"{report.seconds:.1f} s · {report.frames} frames at {float(report.rate):.4g} a second · "
        f"seed {report.settings.seed}"
    )
    if report.without_face:
        line += (
            f" · in {report.without_face} frames the driver shows no face: its motion around them was used"
        )
    kept = KeptClip(model, reference, settings.reference_face, clip=str(output))
    return str(output), line, page.kept.keep(session, "video", kept)


@event("model", "driver", "driver_face", *CLIP_SETTINGS)
def save_motion(model: str, driver: str | None, settings: Settings, clip: ClipSettings, session: str | None):
    """The motion of a driver clip as a file (.npz) that can drive in its place; no picture of the driver is
    in it."""
    import_networks()
    from hellomeme.video import read_motion

    source = clip_source(driver, None)
    output = new_file(f"{file_name(source, 'motion')}.npz")
    motion = None
    with state.STATE.run(session) as flag:
        reenactor = state.STATE.reenactor(model)
        motion, *_ = read_motion(
            source,
            settings,
            clip,
            reenactor.analyzer,
            reenactor.release.crop_scale,
            reenactor.encoders,
            stop_check(flag, drawing.ClipProgress()),
        )
    if motion is None:
        show_stopped()
        return gr.skip()
    motion.save(output)
    if lost := int((~motion.valid).sum()):
        gr.Info(
            f"In {lost} of {len(motion)} frames the driver shows no face: "
            "its motion around them will be used."
        )
    return gr.File(str(output), visible=True)


@dataclass(frozen=True)
class MotionFiles:
    """A motion file as the driver, and the button and the place for saving one."""

    chosen: gr.File
    save: gr.Button
    saved: gr.File


@dataclass(frozen=True)
class Part:
    """Which part of the driver is followed: the choice, and start and end, shown in `times` where chosen."""

    choice: gr.Radio
    times: gr.Row
    settings: dict[str, gr.components.Component]

    def show_after(self, restored: gr.events.Dependency) -> None:
        """Sets the choice after an event that sets start and end."""
        ends = [self.settings[name] for name in ("start", "end")]
        restored.success(chosen_part, ends, [self.choice, self.times], **PRIVATE, **IMMEDIATE)


def chosen_part(start, end):
    """The choice that start and end stand for, and whether they are shown."""
    parts = {(None, 1.0): FIRST, (None, None): WHOLE}
    part = parts.get((parse_number(start), parse_number(end)), BETWEEN)
    return part, gr.update(visible=part == BETWEEN)


def build(shared: SharedSettings, portrait: PortraitInput, tab: gr.Tab) -> tuple[Components, Part]:
    """The tab's components and events. Returns the settings by name, and which part of the clip is chosen."""
    references, clips = examples("references"), examples("clips", "mp4", "webm")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=210, elem_classes="chooser"):
            driver, motion_files = _driver(clips)
        with gr.Column(min_width=210):
            result = _result(references, clips)
            part = _part()
            run = run_and_stop("Make the clip", "video-")
            estimated = summary_line("estimate")
    settings = part.settings | _settings() | shared.settings

    inputs = shared.components | portrait.components | settings
    inputs |= {"driver": driver, "motion_file": motion_files.chosen}
    watched = [inputs[name] for name in make_video.names]
    dim_outdated(result, watched)
    making = run.click(
        make_video,
        watched,
        [result.clip, result.line, result.drawn],
        js=asked(result, make_video.names, make_video.names),
        api_name="video",
        show_progress_on=[result.clip, result.whole],
        **MODEL,
    )
    watch_run(result, making)
    options = {"api_name": "motion", "js": run_begins("motion"), **MODEL}
    saving = motion_files.save.click(
        save_motion, inputs_of(save_motion, inputs), motion_files.saved, **options
    )
    run_ends("motion", saving)
    changing = [inputs[name] for name in ("driver", "motion_file", "model", *ESTIMATED)]
    gr.on(
        [tab.select, *(component.change for component in (*changing, result.clip))],
        estimate,
        inputs_of(estimate, inputs),
        estimated,
        api_name="estimate",
        trigger_mode="always_last",
        **ESTIMATES,
    )
    return settings, part


def _result(references: list[str], clips: list[str]) -> ClipView:
    """The place of the clip, with the one of the first examples, if it was shipped."""
    first = shipped(*(paths[0] if paths else None for paths in (references, clips)))
    return clip_view(
        first, lambda: KeptClip(state.STATE.release, references[0], clip=first) if first else None
    )


def _part() -> Part:
    choices = [(translate(text), name) for name, text in PARTS.items()]
    choice = gr.Radio(choices, value=WHOLE, label=translate("How much of the clip"), elem_id="part")
    with gr.Row(visible=False) as times:
        ends = {name: optional_number(name, min_width=120, elem_id=name) for name in ("start", "end")}
    shown = list(ends.values())
    choice.input(None, [choice, *shown], [*shown, times], js=SET_PART, **PRIVATE)
    return Part(choice, times, ends)


def _driver(clips: list[str]) -> tuple[gr.Video, MotionFiles]:
    driver = gr.Video(
        clips[0] if clips else None,
        label=translate("The clip to copy"),
        sources=["upload", "webcam"],
        height=300,
        elem_id="video-driver",
        buttons=[],
    )
    thumbnail_row(clips, driver, "Clips to try")
    with gr.Accordion(translate("Motion files"), open=False):
        chosen = gr.File(
            label=translate("Drive by a motion file instead"),
            file_types=[".npz"],
            height=170,
            elem_id="motion-file",
        )
        save = gr.Button(translate("Save the clip's motion"), size="sm", elem_id="save-motion")
        saved = gr.File(
            label=translate("The clip's motion, without its pictures"), visible=False, interactive=False
        )
    return driver, MotionFiles(chosen, save, saved)


def _settings() -> dict[str, gr.components.Component]:
    """The settings of a clip, by name."""
    with gr.Row():
        settings = {name: slider(name) for name in ("expression", "head", "smoothing")}
    with gr.Row():
        settings["rate"] = dropdown("rate", elem_id="rate")
        settings["region"] = dropdown("region", elem_id="region")
        settings["side_by_side"] = checkbox("side_by_side", elem_id="side-by-side")
    with gr.Accordion(translate("More for clips"), open=False):
        with gr.Row():
            settings["frames"] = number("frames", elem_id="frames")
            settings["translation"] = slider("translation")
            settings["driver_face"] = face_number_input("driver_face", elem_id="video-driver-face")
        with gr.Row():
            settings["relative"] = checkbox("relative")
            settings["neutral"] = optional_number("neutral")
        with gr.Row():
            settings["motion"] = checkbox("motion")
            settings["fast"] = checkbox("fast")
        settings["overlap"] = slider("overlap")
    return settings

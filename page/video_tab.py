"""The Video tab: a clip, or the motion saved of one, drives a picture."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from pathlib import Path

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import find
from hellomeme.settings import ClipSettings, Settings

from . import drawing, faces, studio
from .blocks import stop
from .common import Common
from .i18n import say
from .parts import (
    QUEUE,
    QUIET,
    choice,
    example_row,
    examples,
    face,
    number,
    number_or_empty,
    picture_input,
    slider,
    stop_button,
    switch,
    typed,
)
from .spaces_gpu import ON_SPACES

CLIP = [field.name for field in fields(ClipSettings)]  # the order of the last arguments of each event


@dataclass(frozen=True)
class VideoTab:
    controls: dict[str, gr.components.Component]  # by the name of the setting


def make_video(
    model,
    reference,
    expression,
    head,
    translation,
    guidance,
    steps,
    seed,
    reference_face,
    driver_face,
    prompt,
    negative_prompt,
    frames,
    start,
    rate,
    smoothing,
    relative,
    neutral,
    region,
    motion,
    overlap,
    fast,
    side_by_side,
    driver=None,
    motion_file=None,
    request: gr.Request = None,
):
    """Gives the reference picture the expressions and head movements of a driver clip or motion file.

    Returns an MP4 file with the driver's sound, and a line about it.
    """
    with studio.told_to_the_visitor():
        if not reference:
            raise HelloMemeError("There is no reference picture yet: choose the portrait that should move.")
        source = _source(driver, motion_file)
        settings = Settings(
            expression=expression,
            head=head,
            translation=translation,
            guidance=guidance,
            steps=steps,
            seed=seed,
            reference_face=face(reference_face),
            driver_face=face(driver_face),
            prompt=prompt,
            negative_prompt=negative_prompt,
        )
        values = (
            frames,
            typed(start),
            rate,
            smoothing,
            relative,
            typed(neutral),
            region,
            motion,
            overlap,
            fast,
            side_by_side,
        )
        clip = ClipSettings(**dict(zip(CLIP, values, strict=True)))
        own, report = studio.STUDIO, None
        with own.stoppable(request and request.session_hash) as flag:
            _check_length(model, source, settings, clip)
            gr.Progress()(0, desc="Looking for the face")
            portrait = own.portrait(model, reference, "reference", settings.reference_face)
            output = _new_file("hellomeme.mp4")
            report = drawing.clip(model, portrait, source, output, settings, clip, flag)
        if report is None:
            gr.Info("Stopped.", duration=3)
            return gr.skip(), gr.skip()
        line = (
            f"{report.seconds:.1f} s · {report.frames} frames at {float(report.rate):.4g} a second · seed "
            f"{report.settings.seed}"
        )
        if report.without_face:
            line += (
                f" · in {report.without_face} frames the driver shows no face: "
                "its motion around them was used"
            )
        return str(output), line


def save_motion(
    model,
    driver,
    driver_face,
    frames,
    start,
    rate,
    smoothing,
    relative,
    neutral,
    region,
    motion,
    overlap,
    fast,
    side_by_side,
    request: gr.Request = None,
):
    """The motion of a driver clip as a file (.npz) that can drive in its place; no picture of the driver is
    in it."""
    studio.import_networks()
    from hellomeme.video import read_motion

    with studio.told_to_the_visitor():
        values = (
            frames,
            typed(start),
            rate,
            smoothing,
            relative,
            typed(neutral),
            region,
            motion,
            overlap,
            fast,
            side_by_side,
        )
        settings, clip = (
            Settings(driver_face=face(driver_face)),
            ClipSettings(**dict(zip(CLIP, values, strict=True))),
        )
        output, source = _new_file("motion.npz"), _source(driver, None)
        found = None
        with studio.STUDIO.stoppable(request and request.session_hash) as flag:
            own = studio.STUDIO.reenactor(model)
            emotion = own.emotion if own.emotion_encoder is not None else None
            progress = studio.stopper(flag, drawing.ToldInFrames())
            found, *_ = read_motion(
                source, settings, clip, own.analyzer, own.release.crop_scale, emotion, progress
            )
        if found is None:
            gr.Info("Stopped.", duration=3)
            return gr.skip()
        found.save(output)
        if lost := int((~found.valid).sum()):
            gr.Info(
                f"In {lost} of {len(found)} frames the driver shows no face: "
                "its motion around them will be used."
            )
        return gr.File(str(output), visible=True)


def estimate(
    model,
    guidance,
    steps,
    frames,
    start,
    rate,
    smoothing,
    relative,
    neutral,
    region,
    motion,
    overlap,
    fast,
    side_by_side,
    driver=None,
    motion_file=None,
):
    """How many frames a clip with these settings will have, how long it will play, and about how long it will
    take."""
    values = (
        frames,
        typed(start),
        rate,
        smoothing,
        relative,
        typed(neutral),
        region,
        motion,
        overlap,
        fast,
        side_by_side,
    )
    try:
        clip, source = ClipSettings(**dict(zip(CLIP, values, strict=True))), _source(driver, motion_file)
        settings = Settings(guidance=guidance, steps=steps).resolved(find(model))
        count, played, frames_read = _length(source, clip)
        plays = (
            f"{count} {'frame' if count == 1 else 'frames'}, {float(count / played):.1f} s at "
            f"{float(played):.4g} a second"
        )
        drawing.clip_needed(model, count, settings, clip)
    except HelloMemeError as error:
        return "" if not (driver or motion_file) else str(error)
    pace = studio.STUDIO.pace.get(model)
    if pace is None:
        return f"{plays}. How long it takes is known after the first picture."
    passes = 2 if settings.guidance > 1 else 1
    wait = drawing.predictions(model, count, settings, clip) * passes * pace + frames_read * ANALYSIS
    return f"{plays}. It takes about {_spoken(wait)} here."


ANALYSIS = 0.03  # s a frame: reading it, and MediaPipe's two looks at it


def _source(driver: str | None, motion_file: str | None) -> str:
    if motion_file and not motion_file.lower().endswith(".npz"):
        raise HelloMemeError("The motion file must be one that was saved here, ending in .npz.")
    if not (driver or motion_file):
        raise HelloMemeError("There is no driver yet: upload a clip, record one, or choose a motion file.")
    return motion_file or driver


def _length(source: str, clip: ClipSettings):
    """(frames to make, how many of them play in a second, frames to analyse before) for a driver."""
    studio.import_networks()
    from hellomeme.face.motion import is_motion_file
    from hellomeme.video import select_frames

    selection = select_frames(source, clip)
    return selection.count, selection.played, 0 if is_motion_file(source) else selection.count


def _check_length(model: str, source: str, settings: Settings, clip: ClipSettings) -> None:
    if ON_SPACES:
        drawing.clip_needed(model, _length(source, clip)[0], settings.resolved(find(model)), clip)


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _new_file(name: str) -> Path:
    """A path in Gradio's folder for temporary files, from which it serves; deleted after an hour as all files
    there."""
    folder = Path(gr.utils.get_upload_folder()) / f"hellomeme-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    return folder / name


def build(common: Common) -> VideoTab:
    """The tab's components and events."""
    references, clips = examples("references"), examples("clips", "mp4", "webm")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            driver = gr.Video(
                clips[0] if clips else None,
                label=say("Driver clip · the face to follow"),
                sources=["upload", "webcam"],
                height=300,
                elem_id="video-driver",
                buttons=[],
            )
            example_row(clips, driver, "Clips to try")
            with gr.Accordion(say("Motion files"), open=False):
                motion_file = gr.File(
                    label=say("Drive by a motion file instead"),
                    file_types=[".npz"],
                    height=170,
                    elem_id="motion-file",
                )
                save = gr.Button(say("Save the clip's motion"), size="sm", elem_id="save-motion")
                saved = gr.File(
                    label=say("The clip's motion, without its pictures"), visible=False, interactive=False
                )
        with gr.Column(min_width=280):
            reference = picture_input(
                "Reference · what moves",
                "Choose a portrait: drop a file, paste or click",
                "video-reference",
                references[-1:],
                height=300,
            )
            reference_face = faces.picker(reference, "reference", "video")
            example_row(references, reference, "Portraits to try")
        with gr.Column(min_width=280):
            result = gr.Video(
                label=say("Result"),
                interactive=False,
                height=300,
                elem_id="video-result",
                buttons=["download"],
                autoplay=True,
                loop=True,
            )
            about = gr.Markdown(elem_id="video-about", elem_classes="about", show_label=False)
            with gr.Row(equal_height=True):
                run = gr.Button(
                    say("Make the clip"),
                    variant="primary",
                    size="lg",
                    scale=3,
                    min_width=120,
                    elem_id="video-run",
                )
                halt = stop_button("video-stop")
            guess = gr.Markdown(elem_id="estimate", elem_classes="about", show_label=False)
    with gr.Row():
        controls = {name: slider(name) for name in ("expression", "head")}
        controls["smoothing"] = slider("smoothing")
    with gr.Row():
        controls["frames"] = number("frames", elem_id="frames")
        controls["rate"], controls["region"] = (
            choice("rate", elem_id="rate"),
            choice("region", elem_id="region"),
        )
        controls["side_by_side"] = switch("side_by_side", elem_id="side-by-side")
    with gr.Accordion(say("More for clips"), open=False):
        with gr.Row():
            controls["start"], controls["translation"] = (
                number_or_empty("start", elem_id="start"),
                slider("translation"),
            )
            controls["driver_face"] = number("driver_face", elem_id="video-driver-face")
        with gr.Row():
            controls["relative"], controls["neutral"] = switch("relative"), number_or_empty("neutral")
        with gr.Row():
            controls["motion"], controls["fast"] = switch("motion"), switch("fast")
        controls["overlap"] = slider("overlap")

    clip = [controls[name] for name in CLIP]
    inputs = [
        common.model,
        reference,
        *(controls[name] for name in ("expression", "head", "translation")),
        common.guidance,
        common.steps,
        common.seed,
        reference_face,
        controls["driver_face"],
        common.prompt,
        common.negative_prompt,
        *clip,
        driver,
        motion_file,
    ]
    run.click(make_video, inputs, [result, about], api_name="video", show_progress_on=result, **QUEUE)
    save.click(
        save_motion, [common.model, driver, controls["driver_face"], *clip], saved, api_name="motion", **QUEUE
    )
    halt.click(stop, api_visibility="private", **QUIET)
    counted = [controls[name] for name in ("frames", "start", "rate", "motion", "overlap", "fast")]
    gr.on(
        [
            component.change
            for component in (driver, motion_file, common.model, common.guidance, common.steps, *counted)
        ]
        + [result.change],
        estimate,
        [common.model, common.guidance, common.steps, *clip, driver, motion_file],
        guess,
        api_name="estimate",
        show_progress="hidden",
        concurrency_id="faces",
        trigger_mode="always_last",
    )
    return VideoTab(controls | common.controls)

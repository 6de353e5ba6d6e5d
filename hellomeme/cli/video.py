"""The commands for clips: `python -m hellomeme video REFERENCE DRIVER OUTPUT` and `motion DRIVER OUT.npz`.

A clip can be drawn over several GPUs with `--processes 4`, or `accelerate launch --num_processes 4 -m
hellomeme video REFERENCE DRIVER OUTPUT`, or torchrun. It is the same as one process's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, TextIO

from ..io.atomic import check_output
from ..settings import ClipSettings, Settings
from . import common
from .processes import joined, own_gpu
from .progress import download_bars, frame_counter

if TYPE_CHECKING:
    from ..sampling.sharing import Team

PICTURE_FIELDS, CLIP_FIELDS = dataclasses.fields(Settings), dataclasses.fields(ClipSettings)
# What the command `motion` uses of them
MOTION_PICTURE_FIELDS = [field for field in PICTURE_FIELDS if field.name == "driver_face"]
MOTION_CLIP_FIELDS = [field for field in CLIP_FIELDS if field.name in ("frames", "start", "end", "rate")]


def video(options: argparse.Namespace, standard_error: TextIO) -> None:
    """Draws a clip and writes it to `options.output`, or draws this process's share of it. Raises
    HelloMemeError for bad input."""
    with joined(standard_error) as share:
        _video(options, standard_error, share)


def _video(options: argparse.Namespace, standard_error: TextIO, share: Team | None) -> None:
    settings = common.settings_from(options, Settings, PICTURE_FIELDS)
    clip = common.settings_from(options, ClipSettings, CLIP_FIELDS)
    inputs = options.reference, options.driver
    output = check_output(options.output, (".mp4",), inputs, options.overwrite)
    _check_driver(options.driver)

    from ..io.image import read_picture

    reference = read_picture(options.reference, "reference")

    reenactor = common.load(options, standard_error, own_gpu())
    reenactor.set_reference(reference, face=settings.reference_face)
    if share:
        share.exchange(None)  # an error of another process ends this one before the driver is analysed
    draw = functools.partial(reenactor.shared_frames, share) if share else None
    if share and share.rank:
        for _ in draw(reenactor.reference, None, reenactor.resolved(settings), clip, lambda *_: None):
            pass  # the first process writes them
        return
    report = reenactor.video(
        options.driver,
        output,
        settings,
        clip,
        frame_counter(standard_error),
        labelled=not options.no_label,
        draw=draw,
    )
    _report_missing(report.without_face, report.frames, standard_error)
    print(output)


def motion(options: argparse.Namespace, standard_error: TextIO) -> None:
    """Writes the motion of the face in a clip, and nothing of its looks, to `options.output`. Raises
    HelloMemeError for bad input."""
    settings = common.settings_from(options, Settings, MOTION_PICTURE_FIELDS)
    clip = common.settings_from(options, ClipSettings, MOTION_CLIP_FIELDS)
    output = check_output(options.output, (".npz",), (options.driver,), options.overwrite)
    _check_driver(options.driver)

    from ..face.onnx_models import face_analyzer
    from ..releases.load import choose_device, choose_dtype, find
    from ..releases.networks import chosen_controls, expression_types, load_encoders
    from ..video import read_motion

    row, encoders = find(options.release), None
    types = expression_types(row, options.expression_type)
    chosen_controls(row, types)  # refuses what the release has not
    if row.emotion_encoder is not None or row.face_parts_encoder is not None:
        import torch

        from ..memory import attempts

        device, progress = choose_device(options.device), download_bars(standard_error)
        dtype = common.dtype_from(options) or choose_dtype(device)
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                encoders = load_encoders(row, types, device, dtype, progress)
                break
    with face_analyzer(options.face_models, download_bars(standard_error)) as analyzer:
        counter = frame_counter(standard_error) or (lambda *_: None)
        found, *_ = read_motion(options.driver, settings, clip, analyzer, row.crop_scale, encoders, counter)
    found.save(output)
    _report_missing(int((~found.valid).sum()), len(found), standard_error)
    print(output)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds both commands to the parser."""
    about = "give a reference picture the expression and head pose of a driver clip, frame by frame"
    command = commands.add_parser("video", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.set_defaults(command=video)
    command.add_argument("reference", metavar="REFERENCE", help="picture of the face that is to move")
    command.add_argument(
        "driver", metavar="DRIVER", help="clip of the face to follow, or a motion file (.npz)"
    )
    command.add_argument("output", metavar="OUTPUT", help="new clip (.mp4)")
    common.add_overwrite(command)
    common.add_no_label(command)
    common.add_model_options(command)
    common.add_processes(command)
    common.add_settings(command, (*PICTURE_FIELDS, *CLIP_FIELDS))

    about = "save what the face of a clip does as a motion file, which can drive like the clip"
    command = commands.add_parser("motion", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.set_defaults(command=motion)
    command.add_argument("driver", metavar="DRIVER", help="clip of a face")
    command.add_argument("output", metavar="OUTPUT", help="new motion file (.npz)")
    common.add_overwrite(command)
    common.add_model_options(command)
    common.add_settings(command, (*MOTION_PICTURE_FIELDS, *MOTION_CLIP_FIELDS))


def _check_driver(driver: str) -> None:
    """Raises HelloMemeError for a driver that cannot be read, before weights are loaded, which takes long."""
    from ..face.motion import Motion, is_motion_file
    from ..io.ffmpeg import probe

    if is_motion_file(driver):
        Motion.load(driver)
    else:
        probe(driver)


def _report_missing(missing: int, frames: int, stream: TextIO) -> None:
    """Says how many frames of the driver show no face."""
    if missing:
        print(
            f"hellomeme: {missing} of {frames} frames show no face and follow those around them.", file=stream
        )

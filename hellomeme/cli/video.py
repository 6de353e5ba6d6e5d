"""The commands for clips: `python -m hellomeme video REFERENCE DRIVER OUTPUT` and `motion DRIVER OUT.npz`."""

from __future__ import annotations

import argparse
import dataclasses

from ..io.atomic import check_output
from ..io.metadata import LABEL
from ..settings import ClipSettings, Settings
from . import common
from .progress import frame_counter

CLIP_FIELDS = dataclasses.fields(ClipSettings)
SELECTION = ("frames", "start", "rate")  # those that count when a driver is only looked at


def video(options: argparse.Namespace, standard_error) -> None:
    """Draws a clip and writes it to `options.output`."""
    settings = Settings(**_chosen(options, dataclasses.fields(Settings)))
    clip = ClipSettings(**_chosen(options, CLIP_FIELDS))
    inputs = options.reference, options.driver
    output = check_output(options.output, (".mp4",), inputs, options.overwrite)
    _check_driver(options.driver)

    from ..io.image import read_picture

    reference = read_picture(options.reference, "reference")

    reenactor = common.load(options, standard_error)
    reenactor.set_reference(reference, face=settings.reference_face)
    counter = frame_counter(standard_error)
    report = reenactor.video(options.driver, output, settings, clip, counter, labelled=not options.no_label)
    _tell_missing(report.without_face, report.frames, standard_error)
    print(output)


def motion(options: argparse.Namespace, standard_error) -> None:
    """Writes what the face of a clip does, and nothing that it looks like, to `options.output`."""
    settings = Settings(driver_face=options.driver_face)
    clip = ClipSettings(**{name: getattr(options, name) for name in SELECTION})
    output = check_output(options.output, (".npz",), (options.driver,), options.overwrite)
    _check_driver(options.driver)

    from ..face.detect import FaceAnalyzer
    from ..releases.load import find
    from ..video import read_motion

    row, emotion = find(options.release), None
    if row.emotion is not None:
        emotion = common.load(options, standard_error).emotion
    with FaceAnalyzer() as analyzer:
        counter = frame_counter(standard_error) or (lambda *_: None)
        found, *_ = read_motion(options.driver, settings, clip, analyzer, row.crop_scale, emotion, counter)
    found.save(output)
    _tell_missing(int((~found.valid).sum()), len(found), standard_error)
    print(output)


def add(commands) -> None:
    """Adds both commands to the parser of the command line."""
    about = "give a reference picture the expression and head pose of a driver clip, frame by frame"
    command = commands.add_parser("video", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.set_defaults(command=video)
    command.add_argument("reference", metavar="REFERENCE", help="picture of the face that is to move")
    command.add_argument(
        "driver", metavar="DRIVER", help="clip of the face to follow, or a motion file (.npz)"
    )
    command.add_argument("output", metavar="OUTPUT", help="new clip (.mp4)")
    command.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    command.add_argument(
        "--no-label", action="store_true", help=f'leave "{LABEL}" out of the metadata of the file'
    )
    common.add_model_options(command)
    for field in (*dataclasses.fields(Settings), *CLIP_FIELDS):
        command.add_argument(f"--{field.name.replace('_', '-')}", **_argument(field))

    about = "save what the face of a clip does as a motion file, which can drive like the clip"
    command = commands.add_parser("motion", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.set_defaults(command=motion)
    command.add_argument("driver", metavar="DRIVER", help="clip of a face")
    command.add_argument("output", metavar="OUTPUT", help="new motion file (.npz)")
    command.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    common.add_model_options(command)
    fields = [field for field in dataclasses.fields(Settings) if field.name == "driver_face"]
    for field in (*fields, *(field for field in CLIP_FIELDS if field.name in SELECTION)):
        command.add_argument(f"--{field.name.replace('_', '-')}", **_argument(field))


def _argument(field: dataclasses.Field) -> dict:
    """What argparse should know about one setting of a picture or a clip."""
    facts = field.metadata
    if facts["kind"] is bool:
        return {"action": argparse.BooleanOptionalAction, "default": field.default, "help": facts["help"]}
    if "choices" in facts:
        text = f"{facts['help']} (default {field.default})"
        return {"choices": facts["choices"], "default": field.default, "help": text}
    return common.argument(field)


def _chosen(options: argparse.Namespace, fields) -> dict:
    return {field.name: getattr(options, field.name) for field in fields}


def _check_driver(driver: str) -> None:
    """Raises HelloMemeError for a driver that cannot be read, before weights are loaded, which takes long."""
    from ..face.motion import Motion, is_motion_file
    from ..io.ffmpeg import probe

    if is_motion_file(driver):
        Motion.load(driver)
    else:
        probe(driver)


def _tell_missing(missing: int, frames: int, stream) -> None:
    if missing:
        print(
            f"hellomeme: {missing} of {frames} frames show no face and follow those around them.", file=stream
        )

"""The commands for pictures: `hellomeme image REFERENCE DRIVER OUTPUT` and `restyle PICTURE OUTPUT`."""

from __future__ import annotations

import argparse
from typing import TextIO

from ..io.atomic import check_output
from ..io.metadata import FORMATS
from . import common
from .progress import step_counter

OUTPUT = f"new picture ({', '.join(FORMATS)})"


def add(commands: argparse._SubParsersAction) -> None:
    """Adds both commands to the parser."""
    command = commands.add_parser(
        "image",
        help="give a reference picture the expression and head pose of a driver picture",
        description="Gives the REFERENCE picture the expression and head pose of the DRIVER picture.",
    )
    command.set_defaults(command=image)
    command.add_argument("reference", metavar="REFERENCE", help="picture of the face that is to change")
    command.add_argument("driver", metavar="DRIVER", help="picture of the face to follow")
    _add_output_and_options(command)

    command = commands.add_parser(
        "restyle",
        help="draw a picture of a face in the style of the base model and its LoRA",
        description="Draws the PICTURE in the style of --base and --lora: it drives itself, so that pose and "
        "expression stay.",
    )
    command.set_defaults(command=image, driver=None)
    command.add_argument("reference", metavar="PICTURE", help="picture of a face")
    _add_output_and_options(command)


def _add_output_and_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", metavar="OUTPUT", help=OUTPUT)
    common.add_overwrite(command)
    common.add_model_options(command)
    common.add_original_size(command)
    common.add_no_label(command)
    common.add_settings(command)


def image(options: argparse.Namespace, standard_error: TextIO) -> None:
    """Draws one picture and writes it to `options.output`. Raises HelloMemeError for bad input."""
    settings = common.settings_from(options)
    inputs = [path for path in (options.reference, options.driver) if path is not None]
    output = check_output(options.output, tuple(FORMATS), inputs, options.overwrite)

    # Pictures first: reading them is quick, while torch and the weights take seconds.
    from ..io.image import read_picture

    reference = read_picture(options.reference, "reference")
    driver = None if options.driver is None else read_picture(options.driver, "driver")

    reenactor = common.load(options, standard_error)
    reenactor.set_reference(reference, face=settings.reference_face)
    result = reenactor.image(driver, settings, progress=step_counter(standard_error))
    common.write(result, output, options)
    print(output)

"""The command for pictures: `python -m hellomeme image REFERENCE DRIVER OUTPUT`."""

from __future__ import annotations

import argparse
from typing import TextIO

from ..io.atomic import check_output
from ..io.metadata import FORMATS
from . import common
from .progress import step_counter


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "image",
        help="give a reference picture the expression and head pose of a driver picture",
        description="Gives the REFERENCE picture the expression and head pose of the DRIVER picture.",
    )
    command.set_defaults(command=image)
    command.add_argument("reference", metavar="REFERENCE", help="picture of the face that is to change")
    command.add_argument("driver", metavar="DRIVER", help="picture of the face to follow")
    command.add_argument("output", metavar="OUTPUT", help=f"new picture ({', '.join(FORMATS)})")
    common.add_overwrite(command)
    common.add_model_options(command)
    common.add_original_size(command)
    common.add_no_label(command)
    common.add_settings(command)


def image(options: argparse.Namespace, standard_error: TextIO) -> None:
    """Draws one picture and writes it to `options.output`. Raises HelloMemeError for bad input."""
    settings = common.settings_from(options)
    inputs = options.reference, options.driver
    output = check_output(options.output, tuple(FORMATS), inputs, options.overwrite)

    # Pictures first: reading them is quick, while torch and the weights take seconds.
    from ..io.image import read_picture

    reference = read_picture(options.reference, "reference")
    driver = read_picture(options.driver, "driver")

    reenactor = common.load(options, standard_error)
    reenactor.set_reference(reference, face=settings.reference_face)
    result = reenactor.image(driver, settings, progress=step_counter(standard_error))
    common.write(result, output, options)
    print(output)

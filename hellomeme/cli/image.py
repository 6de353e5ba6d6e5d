"""The command for pictures: `python -m hellomeme image REFERENCE DRIVER OUTPUT`."""

from __future__ import annotations

import argparse

from ..io.atomic import check_output
from ..io.metadata import FORMATS
from ..settings import Settings
from . import common
from .progress import step_counter


def add(commands) -> None:
    """Adds the command to argparse's subparsers."""
    command = commands.add_parser(
        "image",
        help="give a reference picture the expression and head pose of a driver picture",
        description="Gives the REFERENCE picture the expression and head pose of the DRIVER picture.",
    )
    command.set_defaults(command=image)
    command.add_argument("reference", metavar="REFERENCE", help="picture of the face that is to change")
    command.add_argument("driver", metavar="DRIVER", help="picture of the face to follow")
    command.add_argument("output", metavar="OUTPUT", help=f"new picture ({', '.join(FORMATS)})")
    command.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    common.add_model_options(command)
    common.add_result_options(command)
    common.add_settings(command)


def image(options: argparse.Namespace, standard_error) -> None:
    """Draws one picture and writes it to `options.output`."""
    settings = Settings(**{field.name: getattr(options, field.name) for field in common.FIELDS})
    inputs = options.reference, options.driver
    output = check_output(options.output, tuple(FORMATS), inputs, options.overwrite)

    # Pictures first: they are read in no time, while torch and the weights take seconds.
    from ..io.image import read_picture

    reference = read_picture(options.reference, "reference")
    driver = read_picture(options.driver, "driver")

    reenactor = common.load(options, standard_error)
    reenactor.set_reference(reference, face=settings.reference_face)
    result = reenactor.image(driver, settings, progress=step_counter(standard_error))
    common.write(result, output, options)
    print(output)

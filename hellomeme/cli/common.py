"""What the commands share: options for models, results and settings, and what is done about them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ..io import metadata
from ..settings import Settings
from .progress import download_bars

# Every setting but `translation`, which moves clips only.
FIELDS = [field for field in dataclasses.fields(Settings) if field.name != "translation"]


def add_model_options(command: argparse.ArgumentParser) -> None:
    """Which model draws, and where."""
    command.add_argument(
        "--release", default="demo", help="name of a release, or a folder in its layout (default: demo)"
    )
    command.add_argument("--base", help="base model: hub id, diffusers folder or .safetensors file")
    command.add_argument(
        "--lora", action="append", default=[], metavar="FILE", help="LoRA file for the base; may be repeated"
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    command.add_argument(
        "-v", "--verbose", action="store_true", help="let the libraries log to standard error"
    )


def add_result_options(command: argparse.ArgumentParser) -> None:
    """What is written of a result."""
    command.add_argument(
        "--original-size",
        action="store_true",
        help="write the whole reference picture, with the result pasted into it",
    )
    command.add_argument(
        "--no-label", action="store_true", help=f'leave "{metadata.LABEL}" out of the metadata of the file'
    )


def add_settings(command: argparse.ArgumentParser) -> None:
    """An option for each setting of a picture."""
    for field in FIELDS:
        command.add_argument(f"--{field.name.replace('_', '-')}", **argument(field))


def argument(field: dataclasses.Field) -> dict:
    """What argparse should know about one setting; its range is checked by `Settings` itself."""
    facts = field.metadata
    text = facts["help"].replace("%", "%%")
    if facts["kind"] is not str:
        default = "" if field.default is None else f", default {field.default:g}"
        most = facts["max"] if facts["kind"] is int else format(facts["max"], "g")
        text = f"{text} ({facts['min']:g} to {most}{default})"
    return {
        "type": facts["kind"],
        "default": field.default,
        "metavar": facts["kind"].__name__.upper(),
        "help": text,
    }


def load(options: argparse.Namespace, standard_error, device: str | None = None):
    """The `Reenactor` that the model options ask for, on `device` where they name none."""
    from ..reenactor import Reenactor

    return Reenactor.from_release(
        options.release,
        base=options.base,
        device=options.device or device,
        loras=options.lora,
        progress=download_bars(standard_error),
    )


def write(result, output: Path, options: argparse.Namespace, made_from: str | None = None) -> None:
    """Writes a `reenactor.Result` as the options ask for it, with its settings in the file."""
    picture = result.original_size() if options.original_size else result.picture
    stamp = dataclasses.replace(result.stamp, labelled=not options.no_label, made_from=made_from)
    metadata.save(picture, output, stamp, getattr(options, "overwrite", False))

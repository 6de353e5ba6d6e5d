"""The command line: `python -m hellomeme image REFERENCE DRIVER OUTPUT`; see also `cli_batch` and
`cli_video`.

Exit status 0: the picture is written and its path printed. 2: bad input, told in one line on standard
error; no output file. 130: interrupted. Anything else is a fault of ours and ends with a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from pathlib import Path

from . import metadata
from .errors import HelloMemeError
from .metadata import FORMATS
from .settings import Settings

# Every setting but `translation`, which moves clips only.
FIELDS = [field for field in dataclasses.fields(Settings) if field.name != "translation"]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command (default: the process's own arguments) and returns its exit status."""
    options = _parser().parse_args(arguments)
    with contextlib.nullcontext(sys.stderr) if options.verbose else _quiet() as standard_error:
        try:
            return options.command(options, standard_error) or 0
        except HelloMemeError as error:
            print(f"hellomeme: {' '.join(str(error).split())}", file=standard_error, flush=True)
            return 2
        except KeyboardInterrupt:
            print("hellomeme: interrupted, nothing was written.", file=standard_error, flush=True)
            return 130


def image(options: argparse.Namespace, standard_error) -> None:
    """Draws one picture and writes it to `options.output`."""
    settings = Settings(**{field.name: getattr(options, field.name) for field in FIELDS})
    output = new_file(options.output, options.overwrite, (options.reference, options.driver))

    # Pictures first: they are read in no time, while torch and the weights take seconds.
    from .pictures import read_picture

    reference = read_picture(options.reference, "reference")
    driver = read_picture(options.driver, "driver")

    reenactor = load(options, standard_error)
    reenactor.set_reference(reference, face=settings.reference_face)
    result = reenactor.image(driver, settings, progress=_counter(standard_error))
    write(result, output, options)
    print(output)


def load(options: argparse.Namespace, standard_error, device: str | None = None):
    """The `Reenactor` that the model options ask for, on `device` where they name none."""
    from .reenactor import Reenactor

    return Reenactor.from_release(
        options.release,
        base=options.base,
        device=options.device or device,
        loras=options.lora,
        progress=_bars(standard_error),
    )


def write(result, output: Path, options: argparse.Namespace, made_from: str | None = None) -> None:
    """Writes a `reenactor.Result` as the options ask for it, with its settings in the file."""
    picture = result.original_size() if options.original_size else result.picture
    stamp = dataclasses.replace(result.stamp, labelled=not options.no_label, made_from=made_from)
    metadata.save(picture, output, stamp, getattr(options, "overwrite", False))


def _parser() -> argparse.ArgumentParser:
    from . import cli_batch, cli_video

    parser = _OneLineParser(prog="python -m hellomeme", description="One face drives another.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
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
    add_model_options(command)
    add_result_options(command)
    add_settings(command)
    cli_batch.add(commands)
    cli_video.add(commands)
    return parser


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


class _OneLineParser(argparse.ArgumentParser):
    """argparse, but a mistake is told in one line instead of a usage text and a line."""

    def error(self, message: str):
        self.exit(2, f"hellomeme: {message}; try {self.prog} --help\n")


@contextlib.contextmanager
def _quiet():
    """Keeps libraries off standard error and yields it for our own words.

    MediaPipe's native code writes to file descriptor 2 whatever its log level, so the descriptor itself
    goes to the null device meanwhile.
    """
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") as ours,
        open(os.devnull, "w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            with contextlib.redirect_stderr(nowhere):
                yield ours
        finally:
            sys.stderr.flush()
            os.dup2(ours.fileno(), 2)


def _counter(stream):
    """A progress callback that counts the steps on one line of a terminal; nothing elsewhere."""
    if not stream.isatty():
        return None

    def count(step: int, steps: int) -> None:
        print(f"\rstep {step} of {steps}", end="\n" if step == steps else "", file=stream, flush=True)

    return count


def _bars(stream):
    """A progress callback for downloads: huggingface_hub's bars on a terminal; nothing elsewhere."""
    bars = {}

    def tell(source: str, done: int, total: int) -> None:
        from huggingface_hub.utils import tqdm

        if source not in bars:
            bars[source] = tqdm(
                desc=source, total=total, unit="B", unit_scale=True, file=stream, disable=None
            )
        bars[source].update(done - bars[source].n)
        if done == total:
            bars[source].close()

    return tell


def new_file(
    name: str, overwrite: bool, inputs: tuple[str, ...], formats: tuple[str, ...] = tuple(FORMATS)
) -> Path:
    """The path of a file that may be written; raises HelloMemeError, before any work, for one that may
    not."""
    path = Path(name)
    if path.suffix.lower() not in formats:
        raise HelloMemeError(
            f"The output {name} must end in {'one of ' if formats[1:] else ''}{', '.join(formats)}."
        )
    if path.is_dir():
        raise HelloMemeError(f"The output {name} is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise HelloMemeError(f"The folder {path.parent} for the output does not exist: make it first.")
    if not os.access(path.parent, os.W_OK):
        raise HelloMemeError(f"The folder {path.parent} for the output cannot be written to: choose another.")
    if path.exists():
        if any(os.path.exists(other) and os.path.samefile(path, other) for other in inputs):
            raise HelloMemeError(f"The output {name} is one of the input pictures: choose another name.")
        if not overwrite:
            raise HelloMemeError(f"The output {name} exists: choose another name or add --overwrite.")
    return path

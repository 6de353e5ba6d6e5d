"""`python -m hellomeme fetch RELEASE`: downloads what a release needs, and says what that is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ..errors import HelloMemeError
from ..releases.hub import check_exists
from . import common
from .progress import download_bars

if TYPE_CHECKING:
    from ..releases.files import Needed
    from ..releases.table import Release


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "fetch",
        help="download what a release needs",
        description="Prints the files that a release needs, with their sizes, and downloads those that are "
        "not on this computer into the cache of the Hugging Face hub, which releases and programs share.",
    )
    command.set_defaults(command=fetch)
    command.add_argument("release", metavar="RELEASE", help="name of a release")
    command.add_argument("--no-clips", action="store_true", help="leave out what only clips need")
    command.add_argument("--list", action="store_true", help="print the files, and download nothing")
    common.add_style_options(command)
    common.add_settings(command, [field for field in common.FIELDS if field.name == "few_steps"])
    common.add_upscaler(command)
    common.add_expression_type(command)
    common.add_face_models(command)
    common.add_offline(command)
    common.add_verbose(command)


def fetch(options: argparse.Namespace, standard_error: TextIO) -> None:
    """Lists the files of a release and downloads them. Raises HelloMemeError where the hub cannot be asked,
    or, offline, if anything is missing."""
    from huggingface_hub import is_offline_mode

    from ..releases.files import check_here, download
    from ..releases.load import find

    row = find(options.release)
    parts = _parts(row, options)
    if options.list:
        unknown = _print_files(row, parts, go_on=True)
        if unknown and not is_offline_mode():
            raise HelloMemeError(f"{unknown} of {len(parts)} repositories could not be listed, see there.")
        return
    if is_offline_mode():
        check_here(row, parts)
    else:
        _print_files(row, parts, go_on=False)
        bars = download_bars(standard_error)
        for part in parts:
            download(part, bars)
    print(f"{row.name} is complete on this computer.")


def _parts(row: Release, options: argparse.Namespace) -> list[Needed]:
    """What the options ask for."""
    from ..face.onnx_models import FILES, REPOSITORY
    from ..releases.few_steps import distilled_loras, find_preset
    from ..releases.files import Needed, needed, needed_by

    style = common.style_from(options)
    style.check()
    if options.upscaler is not None:
        check_exists(options.upscaler)
    clips, seeing = not options.no_clips, style.reference_base
    parts = needed(row, options.expression_type, style.base_source, clips, seeing)
    more = distilled_loras(find_preset(options.few_steps, row), style)
    parts += needed_by(row, style, *more, *filter(None, [options.upscaler]))
    parts += [Needed(REPOSITORY, FILES)] if options.face_models == "release" else []
    return parts


def _print_files(row: Release, parts: Sequence[Needed], go_on: bool) -> int:
    """Prints the files of each repository. Returns how many could not be listed; of these it is said what is
    on this computer. Without `go_on` the first of them is an error."""
    from huggingface_hub import is_offline_mode

    from ..releases.files import lacking, listed

    files, unknown = [], 0
    for part in parts:
        print(part.source, flush=True)
        try:
            found = listed(part)
        except HelloMemeError as error:
            if not go_on:
                raise
            unknown += 1
            names = lacking([part]).get(part.source)
            print(f"  missing here: {', '.join(names)}" if names else "  complete on this computer")
            if not is_offline_mode():
                print(f"  {error}", flush=True)
            continue
        files += found
        for file in found:
            print(f"  {file.name:<50} {_size(file.size):>8}{'  here' if file.is_here else ''}", flush=True)
    whole, missing = sum(file.size for file in files), sum(file.size for file in files if not file.is_here)
    told = f"{row.name}: {len(files)} files, {_size(whole)}, of which {_size(missing)} to download"
    if unknown < len(parts):
        print(f"{told}{f'; without {unknown} repositories' if unknown else ''}.", flush=True)
    return unknown


def _size(size: int) -> str:
    """Bytes in the unit that suits them."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB")
    )
    return f"{size / unit:.1f} {name}"

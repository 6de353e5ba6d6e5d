"""`python -m hellomeme fetch RELEASE`: downloads what a release needs, and says what that is."""

from __future__ import annotations

import argparse
from typing import TextIO

from . import common
from .progress import download_bars


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
    command.add_argument("--base", help="another base model: a preset, or a hub id")
    command.add_argument("--no-clips", action="store_true", help="leave out what only clips need")
    command.add_argument("--list", action="store_true", help="print the files, and download nothing")
    common.add_expression_type(command)
    common.add_face_models(command)
    common.add_offline(command)
    common.add_verbose(command)


def fetch(options: argparse.Namespace, standard_error: TextIO) -> None:
    """Lists the files of a release and downloads them. Raises HelloMemeError where the hub cannot be asked,
    or, offline, if anything is missing."""
    from huggingface_hub import is_offline_mode

    from ..face.onnx_models import FILES, REPOSITORY
    from ..releases.files import Needed, check_here, download, listed, needed
    from ..releases.load import find
    from ..releases.styles import Style

    row = find(options.release)
    style = Style(options.base)
    style.check()
    base = style.base_source
    parts = needed(row, options.expression_type, base, not options.no_clips)
    parts += [Needed(REPOSITORY, FILES)] if options.face_models == "release" else []
    if is_offline_mode():
        check_here(row, parts)
    else:
        files = []
        for part in parts:
            print(part.source)
            for file in listed(part):
                files.append(file)
                print(
                    f"  {file.name:<50} {_size(file.size):>8}{'  here' if file.is_here else ''}", flush=True
                )
        missing = sum(file.size for file in files if not file.is_here)
        whole = sum(file.size for file in files)
        print(
            f"{row.name}: {len(files)} files, {_size(whole)}, of which {_size(missing)} to download.",
            flush=True,
        )
        if options.list:
            return
        bars = download_bars(standard_error)
        for part in parts:
            download(part, bars)
    print(f"{row.name} is complete on this computer.")


def _size(size: int) -> str:
    """Bytes in the unit that suits them."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB")
    )
    return f"{size / unit:.1f} {name}"

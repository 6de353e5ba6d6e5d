"""Which files of which repositories a release needs, their sizes, and what of them is on this computer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import HelloMemeError
from .base_model import TEXT_ENCODER_FILES
from .hub import (
    BASE_FILES,
    CONFIG_FILES,
    DEMO_REMARK,
    HALF_BASE_FILES,
    HUB_ID,
    NETWORK_FILES,
    Progress,
    as_path,
    explained,
    fetch,
    missing,
    wanted,
)
from .networks import chosen_controls, expression_types, locate
from .styles import BASES, LORAS, OFFICIAL, Style, split_repository
from .table import Network, Release

ONE_FILE = ("*.safetensors",)  # of a repository that holds one


@dataclass(frozen=True)
class Needed:
    """What is needed of a hub repository: the files that `hub.fetch` takes."""

    source: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub repository. size: bytes. is_here: whether the local cache has it."""

    name: str
    size: int
    is_here: bool


def needed(
    row: Release,
    types: str | Sequence[str] | None = None,
    base: str | None = None,
    clips: bool = False,
    reference_base: str | None = None,
) -> list[Needed]:
    """What `load.load` takes from the hub for a row; parts in local folders are left out.

    types, base, reference_base: `expression_type`, `base` and `reference_base` of `load.load`; for the rest
    of a style see `needed_by`. clips: with the networks that only clips need. Repositories that releases
    share are downloaded once.
    """
    types = expression_types(row, types)
    networks = [row.reference, *chosen_controls(row, types)]
    networks += [row.emotion_encoder] if "pd_fpg" in types else []
    networks += [row.face_parts_encoder] if "drive_coeff" in types else []
    networks += row.motion if clips else ()
    found = [_needed_of(row, net) for net in networks if net is not None and not net.source.is_bundled]
    base = None if base == OFFICIAL else BASES.get(base, base)
    if reference_base is not None:
        seeing = (
            locate(row, row.base) if reference_base == OFFICIAL else BASES.get(reference_base, reference_base)
        )
        if as_path(seeing).suffix.lower() != ".safetensors":
            found.append(Needed(seeing, BASE_FILES))
    if base is not None and as_path(base).suffix.lower() != ".safetensors":
        found.append(Needed(base, BASE_FILES))
        plain = row.base.elsewhere  # its text encoder reads the reference's prompt, see `parts.load_parts`
        if row.has_styles and not row.base.is_bundled and base != plain and reference_base is None:
            found.append(Needed(locate(row, row.base), TEXT_ENCODER_FILES))
    elif not row.base.is_bundled:  # a single file takes the configuration of the release's own base
        found.append(Needed(locate(row, row.base), BASE_FILES if base is None else CONFIG_FILES))
    return _in_hub(found)


def needed_by(row: Release, style: Style, *more: str) -> list[Needed]:
    """What a style takes from the hub beside its base models: an autoencoder, LoRA, embeddings. row: of the
    release. more: sources of further files."""
    vae = BASES.get(style.vae, style.vae)
    if vae == OFFICIAL:  # without another base model it comes with the release's own
        vae = None if style.base_source is None else locate(row, row.base)
    found = [] if vae is None else [Needed(vae, NETWORK_FILES)]
    if vae in BASES.values():
        found = [Needed(vae, tuple(f"vae/{name}" for name in NETWORK_FILES))]
    for source in (*(one.source for one in (*style.loras, *style.embeddings)), *more):
        repository, name = split_repository(LORAS.get(source, source))
        found.append(Needed(repository, ONE_FILE if name is None else (name,)))
    return _in_hub(found)


def _in_hub(parts: Sequence[Needed]) -> list[Needed]:
    """Those that are not on this computer by themselves, each once."""
    return [part for part in dict.fromkeys(parts) if HUB_ID.fullmatch(part.source) and not _is_local(part)]


def _needed_of(row: Release, net: Network) -> Needed:
    place, folder = locate(row, net.source), net.source.subfolder
    if not folder or place != net.source.elsewhere:
        return Needed(place, NETWORK_FILES)
    return Needed(place, tuple(f"{folder}/{name}" for name in NETWORK_FILES))


def _is_local(part: Needed) -> bool:
    return os.path.isdir(as_path(part.source))


def listed(part: Needed, timeout: float | None = None) -> list[RemoteFile]:
    """The files that the hub has of it. timeout: as for `hub.wanted`. Raises HelloMemeError as `hub.fetch`
    does."""
    from huggingface_hub import try_to_load_from_cache

    with explained(part.source):
        sha, chosen = wanted(part.source, part.files, timeout)
        if part.files == BASE_FILES and not any(file.rfilename.startswith("unet/diff") for file in chosen):
            sha, chosen = wanted(part.source, HALF_BASE_FILES, timeout)
    if part.files == ONE_FILE and len(chosen) > 1:
        raise HelloMemeError(f"{part.source} holds {len(chosen)} .safetensors files: name the one to use.")
    return [
        RemoteFile(
            file.rfilename,
            file.lfs.size if file.lfs else file.size,
            isinstance(try_to_load_from_cache(part.source, file.rfilename, revision=sha), str),
        )
        for file in chosen
    ]


def download(part: Needed, progress: Progress | None = None) -> None:
    """Downloads it unless it is here. Raises HelloMemeError as `hub.fetch` does."""
    folder = fetch(part.source, part.files, progress)
    if part.files == BASE_FILES and not list(folder.glob("unet/*.safetensors")):
        fetch(part.source, HALF_BASE_FILES, progress)


def lacking(parts: Sequence[Needed]) -> dict[str, list[str]]:
    """Repository -> what of it is not on this computer, as `hub.missing` says it."""
    found = ((part.source, missing(part.source, part.files)) for part in parts)
    return {source: names for source, names in found if names}


def check_here(row: Release, parts: Sequence[Needed]) -> None:
    """Raises HelloMemeError, with all that is missing, unless everything is on this computer."""
    if found := lacking(parts):
        names = "; ".join(f"{source} ({', '.join(files)})" for source, files in found.items())
        raise HelloMemeError(
            f"The release {row.name} is not complete on this computer, and downloads are off: missing are "
            f"{names}; run `hellomeme fetch {row.name}` where there is a network, or choose another model "
            f"({DEMO_REMARK})."
        )

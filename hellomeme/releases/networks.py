"""The networks of a row: which are wanted, where they are, and loading one."""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import NETWORK_FILES, Progress, fetch
from .table import Control, Network, Release, Source
from .weights import load_module, read_config

CHOICES = {"pd_fpg": ("pd_fpg",), "drive_coeff": ("drive_coeff",), "both": ("drive_coeff", "pd_fpg")}

if TYPE_CHECKING:
    import torch

    from ..expression import ExpressionEncoders


def locate(row: Release, source: Source) -> str:
    """The folder of a part under the row's `root`, or else the hub id or path where it is.

    Raises HelloMemeError where a model folder lacks a part that is nowhere else.
    """
    if row.root is not None and (folder := row.root / source.folder).is_dir():
        return str(folder)
    if source.is_bundled:
        raise HelloMemeError(
            f"The model folder {row.root} has no {source.folder}: it is incomplete, get it again."
        )
    return source.elsewhere


def expression_types(row: Release, chosen: str | Sequence[str] | None) -> Sequence[str]:
    """The expression types that were chosen: by a name of CHOICES, or one by one; None for the default."""
    if chosen is None:
        return [row.expression_type]
    return CHOICES.get(chosen, [chosen]) if isinstance(chosen, str) else chosen


def chosen_controls(row: Release, types: Sequence[str]) -> list[Control]:
    """The row's control nets for these expression types; HelloMemeError for a type that has none."""
    known = dict.fromkeys(net.expression_type for net in row.controls)
    for kind in types:
        if kind not in known:
            raise HelloMemeError(
                f"The release {row.name} has no control net for {kind}: choose from {', '.join(known)}."
            )
    return [net for net in row.controls if net.expression_type in types]


def load_controls(
    row: Release, chosen: Sequence[Control], dtype: torch.dtype, progress: Progress | None
) -> dict[str, torch.nn.Module]:
    """Slot -> control net, from `chosen_controls`. A net that takes either expression is limited to those."""
    nets = {}
    for slot, control in {control.slot: control for control in chosen}.items():
        nets[slot] = load_network(row, control, dtype, progress)
        limit_types(nets[slot], {other.expression_type for other in chosen if other.slot == slot})
    return nets


def limit_types(net: torch.nn.Module, wanted: Collection[str]) -> None:
    """Lets a control net that takes either expression take only those that are wanted."""
    if hasattr(net, "expression_types"):  # the projections have none
        net.expression_types = tuple(kind for kind in net.expression_types if kind in wanted)


def network_class(net: Network) -> type:
    return pkgutil.resolve_name(net.class_path)


def load_network(
    row: Release, net: Network, dtype: torch.dtype, progress: Progress | None
) -> torch.nn.Module:
    """A network of the class that the row names; HelloMemeError if it is of another one."""
    folder = _folder(row, net.source, progress)
    kind, named = network_class(net), read_config(folder).get("_class_name")
    if named not in (None, kind.__name__):
        raise HelloMemeError(f"{folder} holds a network of class {named}, not {kind.__name__}: get it again.")
    return load_module(kind, folder, dtype)


def _folder(row: Release, source: Source, progress: Progress | None) -> Path:
    """The local folder of a network, downloaded unless it is there."""
    place = locate(row, source)
    if not source.subfolder or place != source.elsewhere:
        return fetch(place, progress=progress)
    files = tuple(f"{source.subfolder}/{name}" for name in NETWORK_FILES)
    return fetch(place, files, progress) / source.subfolder


def load_encoders(
    row: Release,
    types: Sequence[str],
    device: torch.device | str,
    dtype: torch.dtype,
    progress: Progress | None = None,
) -> ExpressionEncoders:
    """What reads an expression from pixels for these types of control nets.

    types: "pd_fpg", "drive_coeff". progress: called during downloads, see `hub.fetch`. Raises HelloMemeError
    as `load.load` does.
    """
    from ..expression import ExpressionEncoders
    from ..models.control import FACE_PART_DIM

    wanted = {
        "emotion": row.emotion_encoder if "pd_fpg" in types else None,
        "face_parts": row.face_parts_encoder if "drive_coeff" in types else None,
    }
    networks = {name: load_network(row, net, dtype, progress) for name, net in wanted.items() if net}
    if "face_parts" in networks and (width := networks["face_parts"].config.projection_dim) != FACE_PART_DIM:
        raise HelloMemeError(
            f"The image encoder of {row.name} gives {width} numbers for a picture, and the control nets take "
            f"{FACE_PART_DIM}: get the one of songkey/IP-Adapter."
        )
    return ExpressionEncoders(**networks, negative_emotion=row.negative_emotion).to(device)

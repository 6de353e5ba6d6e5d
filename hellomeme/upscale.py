"""Enlarges pictures with a super-resolution network of any architecture that spandrel knows, tile by tile."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import HelloMemeError
from .releases.hub import Progress
from .releases.one_file import find_file
from .releases.tensors import check_values
from .releases.weights import reason
from .settings import NO_UPSCALER, Settings

TILE = 256  # px of the input along a side: what is enlarged at once
OVERLAP = 32  # px that neighbouring tiles share
BORDER = 8  # px of those at a tile's edge that do not count: the network sees nothing beyond it


class Upscaler:
    """A super-resolution network.

    network: takes (1, 3, H, W) in [0, 1] and returns (1, 3, H * scale, W * scale).
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        scale: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.network, self.scale, self.device, self.dtype = network, scale, torch.device(device), dtype

    @classmethod
    def load(
        cls, source: str, device: torch.device | str = "cpu", progress: Progress | None = None
    ) -> Upscaler:
        """The network in a .safetensors file, a folder or hub id with one, or "hub id/file".

        Raises HelloMemeError without spandrel, and for a file that holds no such network. Pickles are never
        opened.
        """
        loader, unsupported = _spandrel()
        path = find_file(source, progress)
        check_values(path)
        from safetensors.torch import load_file

        try:
            network = loader("cpu").load_from_state_dict(load_file(path))
            network.model.requires_grad_(False)
            if network.input_channels != 3 or network.output_channels != 3 or network.scale < 2:
                raise ValueError("it does not enlarge colour pictures")
            half = torch.device(device).type == "cuda" and network.supports_half
            network.to(device, torch.float16 if half else torch.float32)
        except unsupported as error:
            raise HelloMemeError(
                f"{path.name} is no network that spandrel knows: give one that enlarges pictures."
            ) from error
        except (ValueError, KeyError, RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise HelloMemeError(f"{path.name} cannot be used as an upscaler: {reason(error)}") from error
        return cls(network, network.scale, device, network.dtype)

    def to(self, device: torch.device | str) -> Upscaler:
        """The same network on a device."""
        self.network.to(device)
        self.device = torch.device(device)
        return self

    def __call__(self, picture: np.ndarray, factor: int) -> np.ndarray:
        """The picture (H, W, 3) uint8, enlarged to (H * factor, W * factor, 3).

        The network is applied until the factor is reached; what it makes too large is resampled.
        """
        height, width, _ = picture.shape
        enlarged = picture
        for _ in range(math.ceil(math.log(factor, self.scale) - 1e-9)):
            enlarged = self._once(enlarged)
        if enlarged.shape[:2] != (height * factor, width * factor):
            size = (width * factor, height * factor)
            enlarged = np.asarray(Image.fromarray(enlarged).resize(size, Image.Resampling.LANCZOS))
        return enlarged

    @torch.inference_mode()
    def _once(self, picture: np.ndarray) -> np.ndarray:
        """Enlarges by `scale`. At a time the network holds one tile, and the result is held as float32."""
        height, width, _ = picture.shape
        total = np.zeros((height * self.scale, width * self.scale, 3), np.float32)
        weights = np.zeros((*total.shape[:2], 1), np.float32)
        for rows, down in _tiles(height, self.scale):
            for columns, across in _tiles(width, self.scale):
                tile = torch.from_numpy(picture[rows, columns].copy()).permute(2, 0, 1)[None]
                drawn = self.network((tile / 255).to(self.device, self.dtype))[0].float().cpu()
                place = tuple(slice(a.start * self.scale, a.stop * self.scale) for a in (rows, columns))
                weight = (down[:, None] * across)[..., None]
                total[place] += weight * drawn.permute(1, 2, 0).numpy()
                weights[place] += weight
        return (total / weights * 255).round().clip(0, 255).astype(np.uint8)


def check_upscaling(settings: Settings, upscaler: Upscaler | None) -> None:
    """Raises HelloMemeError if the settings ask for upscaling and there is nothing to do it with."""
    if settings.enlargement > 1 and upscaler is None:
        raise HelloMemeError(NO_UPSCALER)


def upscaled(picture: np.ndarray, settings: Settings, upscaler: Upscaler | None) -> np.ndarray:
    """The picture (H, W, 3) uint8 as the settings want it; unchanged where upscaling is off."""
    return picture if settings.enlargement == 1 else upscaler(picture, settings.enlargement)


def _tiles(length: int, scale: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Along one axis: the pixels of each tile, and the weight of each pixel it becomes, which rises from the
    edges it shares with other tiles."""
    last = max(length - TILE, 0)
    for start in sorted({*range(0, last, TILE - OVERLAP), last}):
        stop = min(start + TILE, length)
        middles = (np.arange((stop - start) * scale) + 0.5) / scale  # px of the input
        before = np.inf if start == 0 else middles
        after = np.inf if stop == length else stop - start - middles
        ramp = (np.minimum(before, after) - BORDER) / (OVERLAP - 2 * BORDER)
        weight = np.broadcast_to(np.clip(ramp, 1e-6, 1), middles.shape)
        yield slice(start, stop), weight.astype(np.float32)


def _spandrel() -> tuple[type, type]:
    """spandrel's loader and its error for an unknown network."""
    try:
        # Imported by name: it is an extra, and imports torchvision
        return pkgutil.resolve_name("spandrel:ModelLoader"), pkgutil.resolve_name(
            "spandrel:UnsupportedModelError"
        )
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        raise HelloMemeError(
            f"Upscaling needs the package spandrel, which cannot be imported ({reason(error)[:-1]}): "
            "pip install 'hellomeme[upscale]'."
        ) from error

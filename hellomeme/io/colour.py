"""Colours of pictures and clips in sRGB: what profiles, wide gamuts and HDR say is applied."""

from __future__ import annotations

import functools
import io
import re

import numpy as np
from PIL import Image, ImageCms, ImageFilter

# (primaries, transfer) are the code points of ITU-T H.273, as AVIF, HEIF, PNG and clips have them.
SRGB = (1, 13)
PQ, HLG = 16, 18  # transfer functions of HDR
ADOBE_RGB = (-1, -1)  # has no code points
WHITE = (0.3127, 0.3290)  # D65, of all of them
CHROMATICITIES = {  # x, y of red, green and blue
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
    -1: ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),  # Adobe RGB (1998)
}
DIFFUSE_WHITE = 203  # cd/m2: ITU-R BT.2408 puts the white of paper there, which is white in sRGB
KNEE = 0.9  # of that white: what is brighter is compressed
GRID = 65  # points of a table along each colour, the most that PIL allows
NCLX = re.compile(rb"colrnclx(..)(..)", re.DOTALL)
CICP = re.compile(rb"\0\0\0\x04cICP(.)(.)", re.DOTALL)
# Its date of creation is left out: the same picture shall be the same file
SRGB_PROFILE = (lambda b: b[:24] + bytes(12) + b[36:])(
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
)


def code_points(head: bytes, kind: str) -> tuple[int, int]:
    """(primaries, transfer) that the first bytes of an AVIF, HEIF or PNG file name; SRGB if they do not.

    kind: of the file, as PIL names it.
    """
    found = {"AVIF": NCLX, "HEIF": NCLX, "PNG": CICP}.get(kind)
    found = found and found.search(head)
    return tuple(int.from_bytes(code, "big") for code in found.groups()) if found else SRGB


def needs_table(primaries: int, transfer: int) -> bool:
    """Whether such colours look different from sRGB."""
    return transfer in (PQ, HLG) or (primaries in CHROMATICITIES and primaries != 1)


@functools.lru_cache(maxsize=4)
def table(primaries: int, transfer: int) -> ImageFilter.Color3DLUT:
    """A filter that brings such an RGB picture to sRGB. HDR is tone-mapped: red, green and blue stay up to
    KNEE of the diffuse white, and approach it above."""
    axis = np.linspace(0, 1, GRID)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest
    light = _linear(np.stack([red, green, blue], -1), transfer)
    light = light @ (np.linalg.inv(_to_xyz(1)) @ _to_xyz(primaries)).T
    if transfer in (PQ, HLG):
        compressed = 1 - (1 - KNEE) * np.exp(-(np.maximum(light, KNEE) - KNEE) / (1 - KNEE))
        light = np.where(light > KNEE, compressed, light)
    light = np.clip(light, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return ImageFilter.Color3DLUT(GRID, encoded.astype(np.float32).reshape(-1, 3))


def from_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    """A picture of mode L, RGB or CMYK as sRGB, from its ICC profile. A profile that is damaged or made for
    another kind of picture is ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if picture.mode == "L" and space == "RGB":
            picture = picture.convert("RGB")
        if {"L": "GRAY"}.get(picture.mode, picture.mode) == space:
            return ImageCms.profileToProfile(
                picture,
                source,
                ImageCms.ImageCmsProfile(io.BytesIO(SRGB_PROFILE)),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass
    return picture.convert("RGB")


def _linear(encoded: np.ndarray, transfer: int) -> np.ndarray:
    """Encoded RGB in [0, 1] as linear light, of which 1 is the (diffuse) white."""
    if transfer == PQ:  # SMPTE ST 2084
        root = encoded ** (32 / 2523)
        nits = 10_000 * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
        return nits / DIFFUSE_WHITE
    if transfer == HLG:  # ITU-R BT.2100, on its reference screen of 1000 cd/m2
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(encoded <= 0.5, encoded**2 / 3, (np.exp((encoded - c) / a) + b) / 12)
        brightness = scene @ np.array([0.2627, 0.6780, 0.0593])
        return scene * brightness[..., None] ** 0.2 * (1000 / DIFFUSE_WHITE)
    if transfer == ADOBE_RGB[1]:
        return encoded ** (563 / 256)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _to_xyz(primaries: int) -> np.ndarray:
    """(3, 3): linear RGB to XYZ."""

    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1, (1 - x - y) / y]

    matrix = np.array([xyz(*point) for point in CHROMATICITIES.get(primaries, CHROMATICITIES[1])]).T
    return matrix * np.linalg.solve(matrix, xyz(*WHITE))

"""Pictures: from files, PIL and arrays to 8-bit sRGB, and from tensors to PIL."""

from __future__ import annotations

import functools
import io
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import HelloMemeError
from .colour import ADOBE_RGB, SRGB, code_points, from_profile, needs_table, table

if TYPE_CHECKING:
    import torch

MAX_SIDE = 4096  # px: larger pictures are reduced to this on reading; the networks see at most 512
MIN_SIDE = 32  # px: smaller pictures cannot show a face
MAX_PIXELS = 150_000_000  # of a file: half a gigabyte when decoded. PIL itself refuses 179 million
BACKGROUND = (255, 255, 255)  # of transparent pictures: most stickers and cut-outs are made for white
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "TGA", "PPM", "ICO")
# Not every format of PIL: EPS, for example, would start another program
HEAD = 1 << 16  # bytes at the beginning of a file in which its colours are named
HEIC = re.compile(rb".{4}ftyp(?=.{0,60}(hei[cmsx]|hev[cmsx]|mif1|msf1))(?!.{0,60}avi[fs])", re.DOTALL)
CLIPS = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")


def read_picture(source: str | os.PathLike | Image.Image | np.ndarray, name: str = "reference") -> np.ndarray:
    """A picture as (H, W, 3) uint8 sRGB, upright, its longer side at most 4096 px.

    source: a path, a PIL picture, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, uint16, bool,
    or floats in [0, 1]. Colour profiles are applied, and HDR pictures are tone-mapped. Transparent parts
    become white. Of an animation, the first frame is read. HEIC files need pillow-heif.
    name: what error messages call the picture.
    Raises HelloMemeError for a picture that cannot be read or has a side shorter than 32 px.
    """
    if isinstance(source, (str, os.PathLike)):
        with _open(Path(source), name) as picture:
            _check_size(picture.size, name)
            return _decoded(picture, name, Path(source))
    if isinstance(source, np.ndarray):
        source = _from_array(source, name)
    if not isinstance(source, Image.Image):
        raise HelloMemeError(
            f"The {name} picture is of type {type(source).__name__}: give a path, a PIL picture or "
            "a numpy array."
        )
    _check_size(source.size, name)
    return _decoded(source, name)


def to_pictures(frames: torch.Tensor) -> list[Image.Image]:
    """(1, 3, T, H, W) in [0, 1] -> T PIL pictures."""
    pixels = (frames[0].permute(1, 2, 3, 0).cpu() * 255).round().byte().numpy()
    return [Image.fromarray(frame) for frame in pixels]


def _open(path: Path, name: str) -> Image.Image:
    if os.path.isdir(path):  # Path.is_dir raises for names that are too long
        raise HelloMemeError(f"The {name} picture {path} is a folder: choose a picture in it.")
    if not os.path.isfile(path):
        raise HelloMemeError(f"The {name} picture {path} does not exist: check the path.")
    Image.init()
    formats = [*FORMATS, "HEIF"] if _reads_heic() else FORMATS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_size has the limit
            return Image.open(path, formats=[kind for kind in formats if kind in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise HelloMemeError(_too_large(name)) from error
    except PermissionError as error:
        raise HelloMemeError(f"The {name} picture {path} may not be read: change its permissions.") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        if HEIC.match(_head(path)) and not _reads_heic():
            raise HelloMemeError(
                f"The {name} picture {path.name} is an HEIC picture: run `pip install pillow-heif`, or save "
                "it as JPEG."
            ) from error
        if path.suffix.lower() in CLIPS:
            raise HelloMemeError(
                f"{path.name} is a clip, and the {name} must be a still: save one of its frames as a picture."
            ) from error
        raise HelloMemeError(
            f"The {name} picture {path.name} is not a picture that can be read: choose a PNG, "
            "JPEG or WebP file."
        ) from error


@functools.cache
def _reads_heic() -> bool:
    """Whether PIL can read HEIC files."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _decoded(picture: Image.Image, name: str, path: Path | None = None) -> np.ndarray:
    """path: of the file, if it is a file that was opened and has not been decoded."""
    try:
        colours = SRGB
        if path is not None:
            colours = code_points(_head(path), picture.format)
            picture = _loaded_jpeg(picture, path) if picture.format in ("JPEG", "MPO") else picture
        exif, profile = picture.getexif(), picture.info.get("icc_profile")
        orientation = exif.get(ExifTags.Base.Orientation)
        if _is_adobe_rgb(exif):
            colours = ADOBE_RGB
        picture = _rgb(picture, profile, colours)
        if orientation:  # last, when the picture is small; its tag may be lost by then
            picture.getexif()[ExifTags.Base.Orientation] = orientation
            picture = ImageOps.exif_transpose(picture)
        return np.array(picture)
    except Exception as error:
        raise HelloMemeError(
            f"The {name} picture is damaged or cut off: save or download it again."
        ) from error


def _is_adobe_rgb(exif: Image.Exif) -> bool:
    """Whether EXIF data says so, as cameras do that write no profile."""
    try:
        interop = ExifTags.IFD.Interop
        if interop not in exif.get_ifd(ExifTags.IFD.Exif):
            return False
        return exif.get_ifd(interop).get(ExifTags.Interop.InteropIndex) == "R03"
    except Exception:  # damaged data raises nearly anything, and the picture may still be whole
        return False


def _loaded_jpeg(picture: Image.Image, path: Path) -> Image.Image:
    """A JPEG file decoded, also without its end mark. Raises OSError if more is missing."""
    # It decodes to a half, a quarter or an eighth of its size
    picture.draft(None, (MAX_SIDE, MAX_SIDE))
    try:
        picture.load()
        return picture
    except OSError:
        content = re.sub(rb"\0{4,}\Z|\xff\Z", b"", path.read_bytes())
        # If there was data missing, what stands in its place would be seen
        ends = (b"\xff\xd9", b"\xa7\x5b\x3c\xe1" * 256 + b"\xff\xd9")
        versions = [Image.open(io.BytesIO(content + end), formats=["JPEG"]) for end in ends]
        for version in versions:
            version.draft(None, (MAX_SIDE, MAX_SIDE))
        if versions[0].tobytes() != versions[1].tobytes():
            raise
        return versions[0]


def _reduced(picture: Image.Image) -> Image.Image:
    if max(picture.size) <= MAX_SIDE:
        return picture
    return ImageOps.contain(picture, (MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)


def _rgb(picture: Image.Image, profile: bytes | None, colours: tuple[int, int]) -> Image.Image:
    """Any mode to sRGB, reduced; transparent parts become white. profile: ICC. colours: code points."""
    if picture.mode == "F" or picture.mode.startswith("I"):  # PIL would cut these off at 255
        values = np.asarray(picture)
        top = values.max() if picture.mode in "FI" else 65535
        full = 1 if picture.mode == "F" and top <= 1 else 255 if top <= 255 else 65535
        picture = Image.fromarray(_to_bytes(values, full))
    alpha = None
    if picture.has_transparency_data:
        # first, as a background at full size would take half a gigabyte
        picture = _reduced(picture if picture.mode in ("RGBA", "LA") else picture.convert("RGBA"))
        alpha = picture.getchannel("A")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    picture = _reduced(picture if picture.mode in ("L", "RGB", "CMYK") else picture.convert("RGB"))
    if profile:
        picture = from_profile(picture, profile)
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    if not profile and needs_table(*colours):
        picture = picture.filter(table(*colours))
    if alpha is not None:
        picture.putalpha(alpha)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, BACKGROUND), picture).convert("RGB")
    return picture


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise HelloMemeError(
            f"The {name} picture is an array of shape {array.shape}: give height x width x 3."
        )
    _check_size(array.shape[1::-1], name)
    full = {"uint8": 255, "uint16": 65535, "bool": 1}.get(
        array.dtype.name, 1 if array.dtype.kind == "f" else None
    )
    if full is None:
        raise HelloMemeError(
            f"The {name} picture is an array of {array.dtype}: give bytes (uint8), or floats from 0 to 1."
        )
    if not np.isfinite(array).all():
        raise HelloMemeError(
            f"The {name} picture holds values that are not numbers: give bytes, or floats from 0 to 1."
        )
    if array.max() > full + 1e-3 or array.min() < -1e-3:  # resampling overshoots a little
        raise HelloMemeError(
            f"The {name} picture holds floats from {array.min():.3g} to {array.max():.3g}: give "
            "floats from 0 to 1, or bytes."
        )
    return Image.fromarray(_to_bytes(array, full))


def _to_bytes(values: np.ndarray, full: int) -> np.ndarray:
    """0..full -> 0..255 uint8, rounded."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    scaled = np.multiply(values, 255 / full, dtype=np.float32)
    return np.clip(np.round(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise HelloMemeError(
            f"The {name} picture is only {width} x {height} pixels: choose one of at least "
            f"{MIN_SIDE} x {MIN_SIDE}."
        )
    if width * height > MAX_PIXELS:
        raise HelloMemeError(_too_large(name))


def _too_large(name: str) -> str:
    return f"The {name} picture has more than {MAX_PIXELS // 1_000_000} million pixels: reduce it first."

"""Every kind of picture a user may bring: what is read, and the one sentence for what is not."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.io.image import MAX_SIDE, read_picture

WIDTH, HEIGHT = 60, 40
# dark blue left, light orange right: tells flips, channel swaps and scaling errors apart
TRUTH = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
TRUTH[:, :30], TRUTH[:, 30:] = (20, 40, 120), (250, 180, 90)
TRUTH[:10, :10] = (0, 200, 0)
GREY = TRUTH[:, :, 1]


OPTIONS = {
    "jpg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True},
    "png": {},
    "bmp": {},
    "tiff": {},
}


def close(picture, truth, tolerance=0):
    assert picture.dtype == np.uint8 and picture.shape == truth.shape
    assert np.abs(picture.astype(int) - truth).max() <= tolerance


@pytest.mark.parametrize("kind, tolerance", [("png", 0), ("bmp", 0), ("tiff", 0), ("webp", 0), ("jpg", 40)])
def test_file_formats(tmp_path, kind, tolerance):
    path = tmp_path / f"picture.{kind}"
    Image.fromarray(TRUTH).save(path, **OPTIONS[kind])
    close(read_picture(path), TRUTH, tolerance)
    close(read_picture(str(path)), TRUTH, tolerance)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize(
    "orientation, stored",
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
def test_orientation_tag(tmp_path, kind, orientation, stored):
    path = tmp_path / f"phone.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored(TRUTH))).save(path, exif=exif, **OPTIONS[kind])
    close(read_picture(path), TRUTH, 40 if kind == "jpg" else 0)


def test_modes(tmp_path):
    rgb = Image.fromarray(TRUTH)
    for picture in (rgb, rgb.quantize(8), rgb.convert("RGBX"), rgb.convert("YCbCr"), rgb.convert("CMYK")):
        close(read_picture(picture), TRUTH, 3)
    for mode in ("L", "LA"):
        close(read_picture(Image.fromarray(GREY).convert(mode)), np.repeat(GREY[..., None], 3, 2))
    black_and_white = Image.fromarray(GREY > 100)
    assert black_and_white.mode == "1"
    close(read_picture(black_and_white), np.repeat(np.uint8(255) * (GREY > 100)[..., None], 3, 2))
    path = tmp_path / "print.jpg"
    rgb.convert("CMYK").save(path, quality=100, subsampling=0)
    close(read_picture(path), TRUTH, 40)


def test_transparent_parts_become_white(tmp_path):
    cut_out = np.dstack([TRUTH, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    cut_out[:, :30, 3] = 0
    cut_out[20:, 30:, 3] = 128
    truth = TRUTH.copy()
    truth[:, :30] = 255
    truth[20:, 30:] = np.round(TRUTH[20:, 30:] * (128 / 255) + 127)
    close(read_picture(Image.fromarray(cut_out)), truth, 1)
    close(read_picture(cut_out), truth, 1)
    palette = Image.fromarray(TRUTH).quantize(8)
    palette.save(tmp_path / "sticker.gif", transparency=palette.getpixel((20, 20)))
    seen = read_picture(tmp_path / "sticker.gif")
    assert (seen[20, 20] == 255).all() and np.abs(seen[20, 50].astype(int) - TRUTH[20, 50]).max() <= 2


def png(chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def png16(path, samples):
    """A 16-bit PNG by hand: PIL writes grey ones only."""
    height, width = samples.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[samples.reshape(height, width, -1).shape[2]]
    rows = samples.astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    path.write_bytes(png(chunks))


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    path = tmp_path / "deep.png"
    png16(path, GREY.astype(np.uint16) * 257)
    close(read_picture(path), np.repeat(GREY[..., None], 3, 2))
    png16(path, TRUTH.astype(np.uint16) * 257)
    close(read_picture(path), TRUTH)
    opaque = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    png16(path, np.dstack([TRUTH, opaque]).astype(np.uint16) * 257)
    close(read_picture(path), TRUTH)
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "deep.tiff")
    close(read_picture(tmp_path / "deep.tiff"), np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize(
    "array",
    [
        TRUTH,
        TRUTH / 255,
        (TRUTH / 255).astype(np.float32),
        TRUTH.astype(np.uint16) * 257,
        TRUTH[::-1][::-1],
        np.asfortranarray(TRUTH),
    ],
)
def test_arrays(array):
    close(read_picture(array), TRUTH)


def test_grey_arrays():
    truth = np.repeat(GREY[..., None], 3, 2)
    for array in (GREY, GREY[..., None], GREY / 255):
        close(read_picture(array), truth)
    close(read_picture(GREY > 100), np.uint8(255) * (truth > 100))


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path, kind):
    path = tmp_path / f"moving.{kind}"
    more = [Image.fromarray(255 - TRUTH), Image.fromarray(TRUTH[::-1].copy())]
    Image.fromarray(TRUTH).save(path, save_all=True, append_images=more, duration=50, lossless=True)
    assert Image.open(path).n_frames == 3
    close(read_picture(path), TRUTH, 2)


def test_very_large_pictures_are_reduced(tmp_path):
    path = tmp_path / "poster.png"  # 108 million pixels, of one bit each to be quick to make
    poster = Image.new("1", (12000, 9000))
    poster.paste(1, (6000, 0, 12000, 9000))
    poster.save(path)
    picture = read_picture(path)
    assert picture.shape == (3072, MAX_SIDE, 3)
    assert (picture[:, :2040] == 0).all() and (picture[:, 2056:] == 255).all()

    path = tmp_path / "camera.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(TRUTH)).resize((4000, 6000), Image.Resampling.NEAREST).save(path, exif=exif)
    picture = read_picture(path)
    assert max(picture.shape) <= MAX_SIDE and abs(picture.shape[1] / picture.shape[0] - 1.5) < 0.01
    assert np.abs(picture[-100, 100].astype(int) - (20, 40, 120)).max() < 6


def test_a_users_picture_is_left_alone(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(TRUTH).resize((5000, 100)).save(path)
    picture = Image.open(path)
    assert read_picture(picture).shape[1] == MAX_SIDE
    assert picture.size == (5000, 100)


NOT_A_PICTURE = "is not a picture that can be read: choose a PNG, JPEG or WebP file."
DAMAGED = "The driver picture is damaged or cut off: save or download it again."


def bad_inputs(folder):
    def file(name, content):
        (folder / name).write_bytes(content)
        return folder / name

    def saved(name, size, **options):
        Image.new("RGB", size).save(folder / name, **options)
        return folder / name

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(folder / "whole.png")
    noise.save(folder / "whole.jpg")
    noise.save(folder / "whole.webp")

    def claims(name, width, height):  # a tiny file that says it is a large picture
        return file(
            name, png([(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")])
        )

    too_large = "The driver picture has more than 150 million pixels: reduce it first."
    holed = np.full((40, 40, 3), np.nan)
    return {
        "missing": (
            folder / "none.png",
            f"The driver picture {folder / 'none.png'} does not exist: check the path.",
        ),
        "empty path": ("", "The driver picture . is a folder: choose a picture in it."),
        "null byte": ("a\0b.png", "The driver picture a\0b.png does not exist: check the path."),
        "folder": (folder, f"The driver picture {folder} is a folder: choose a picture in it."),
        "text": (file("text.png", b"not a picture\n" * 100), f"The driver picture text.png {NOT_A_PICTURE}"),
        "empty": (file("empty.jpg", b""), f"The driver picture empty.jpg {NOT_A_PICTURE}"),
        "html": (file("page.jpg", b"<!doctype html><img>"), f"The driver picture page.jpg {NOT_A_PICTURE}"),
        "vector": (
            file("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            f"The driver picture a.svg {NOT_A_PICTURE}",
        ),
        "program": (
            file("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n"),
            f"The driver picture a.eps {NOT_A_PICTURE}",
        ),
        "header only": (
            file("head.png", (folder / "whole.png").read_bytes()[:20]),
            f"The driver picture head.png {NOT_A_PICTURE}",
        ),
        "cut png": (file("cut.png", (folder / "whole.png").read_bytes()[:6000]), DAMAGED),
        "cut jpeg": (file("cut.jpg", (folder / "whole.jpg").read_bytes()[:1500]), DAMAGED),
        "cut webp": (
            file("cut.webp", (folder / "whole.webp").read_bytes()[:-500]),
            f"The driver picture cut.webp {NOT_A_PICTURE}",
        ),
        "1 x 1": (
            saved("dot.png", (1, 1)),
            "The driver picture is only 1 x 1 pixels: choose one of at least 32 x 32.",
        ),
        "narrow": (
            saved("line.png", (900, 8)),
            "The driver picture is only 900 x 8 pixels: choose one of at least 32 x 32.",
        ),
        "small PIL": (
            Image.new("RGB", (31, 64)),
            "The driver picture is only 31 x 64 pixels: choose one of at least 32 x 32.",
        ),
        "bomb": (claims("bomb.png", 100_000, 100_000), too_large),
        "large": (claims("large.png", 13_000, 12_000), too_large),
        "nothing": (
            None,
            "The driver picture is of type NoneType: give a path, a PIL picture or a numpy array.",
        ),
        "number": (7, "The driver picture is of type int: give a path, a PIL picture or a numpy array."),
        "list": ([[0]], "The driver picture is of type list: give a path, a PIL picture or a numpy array."),
        "bytes": (
            b"\x89PNG",
            "The driver picture is of type bytes: give a path, a PIL picture or a numpy array.",
        ),
        "NaN": (
            holed,
            "The driver picture holds values that are not numbers: give bytes, or floats from 0 to 1.",
        ),
        "infinite": (
            np.full((40, 40), np.inf),
            "The driver picture holds values that are not numbers: give bytes, or floats from 0 to 1.",
        ),
        "floats to 255": (
            np.full((40, 40, 3), 255.0),
            "The driver picture holds floats from 255 to 255: give floats from 0 to 1, or bytes.",
        ),
        "negative floats": (
            np.linspace(-1, 1, 4800).reshape(40, 40, 3),
            "The driver picture holds floats from -1 to 1: give floats from 0 to 1, or bytes.",
        ),
        "int64": (
            np.zeros((40, 40, 3), int),
            "The driver picture is an array of int64: give bytes (uint8), or floats from 0 to 1.",
        ),
        "objects": (
            np.full((40, 40, 3), None),
            "The driver picture is an array of object: give bytes (uint8), or floats from 0 to 1.",
        ),
        "channels first": (
            np.zeros((3, 40, 40), np.uint8),
            "The driver picture is an array of shape (3, 40, 40): give height x width x 3.",
        ),
        "clip": (
            np.zeros((5, 40, 40, 3), np.uint8),
            "The driver picture is an array of shape (5, 40, 40, 3): give height x width x 3.",
        ),
        "row": (
            np.zeros(40, np.uint8),
            "The driver picture is an array of shape (40,): give height x width x 3.",
        ),
        "empty array": (
            np.zeros((0, 40, 3), np.uint8),
            "The driver picture is only 40 x 0 pixels: choose one of at least 32 x 32.",
        ),
    }


def test_bad_input_gets_one_sentence(tmp_path):
    for case, (source, sentence) in bad_inputs(tmp_path).items():
        with pytest.raises(HelloMemeError) as caught:
            read_picture(source, "driver")
        assert str(caught.value) == sentence, case

"""Pictures of telephones, cameras and printers come out in sRGB, and results say that they are in it."""

import io
import re
import struct
import sys

import colour_profiles
import numpy as np
import pytest
from PIL import Image, ImageCms
from test_pictures import DAMAGED, HEIGHT, TRUTH, WIDTH, close, png

from hellomeme.errors import HelloMemeError
from hellomeme.io import image, metadata
from hellomeme.io.image import read_picture
from page import gradio_patches
from page.components import with_metadata

SPACES = {
    "Display P3": colour_profiles.DISPLAY_P3,
    "Adobe RGB": colour_profiles.ADOBE_RGB,
    "ProPhoto": colour_profiles.PROPHOTO,
}
# muted colours, which each of these spaces has, and each that of a large field
MUTED = TRUTH // 2 + 60


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "jpg"])
def test_profiles_are_applied(tmp_path, space, kind):
    picture = Image.fromarray(colour_profiles.encoded(MUTED, SPACES[space]))
    assert np.abs(np.asarray(picture).astype(int) - MUTED).max() > 8
    options = {"icc_profile": colour_profiles.profile(SPACES[space])}
    if kind == "webp":
        options["lossless"] = True
    if kind == "jpg":
        options |= {"quality": 98, "subsampling": 0}
    picture.save(tmp_path / f"a.{kind}", **options)
    found = read_picture(tmp_path / f"a.{kind}")
    assert np.abs(found.astype(int) - MUTED).mean() < 2
    close(found[15:, 35:55], MUTED[15:, 35:55], 4)
    with Image.open(tmp_path / f"a.{kind}") as opened:
        np.testing.assert_array_equal(read_picture(opened), found)


def test_profiles_of_other_kinds_of_pictures(tmp_path):
    """Transparent ones, palettes, grey ones; and profiles that fit nothing are passed over."""
    p3 = colour_profiles.profile(colour_profiles.DISPLAY_P3)
    stored = colour_profiles.encoded(MUTED, colour_profiles.DISPLAY_P3)
    cut_out = np.dstack([stored, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    cut_out[:, :30, 3] = 0
    Image.fromarray(cut_out).save(tmp_path / "a.png", icc_profile=p3)
    found = read_picture(tmp_path / "a.png")
    close(found[:, 30:], MUTED[:, 30:], 4)
    assert (found[:, :30] == 255).all()
    Image.fromarray(stored).quantize(8).save(tmp_path / "b.png", icc_profile=p3)
    close(read_picture(tmp_path / "b.png"), MUTED, 4)

    grey = Image.fromarray(MUTED[..., 1])
    grey.save(tmp_path / "c.png", icc_profile=p3)  # grey is grey in any RGB
    close(read_picture(tmp_path / "c.png"), np.repeat(MUTED[..., 1:2], 3, 2), 2)
    for wrong in (b"nothing", p3[:200], colour_profiles.cmyk_profile(), bytes(500)):
        Image.fromarray(MUTED).save(tmp_path / "d.png", icc_profile=wrong)
        close(read_picture(tmp_path / "d.png"), MUTED)


def test_inks_are_those_of_the_profile(tmp_path):
    """A printer's first ink is red here, where it is cyan without the profile."""
    inks = np.zeros((40, 40, 4), np.uint8)
    inks[:, 20:, 0] = 255
    for kind in ("jpg", "tiff"):
        path = tmp_path / f"a.{kind}"
        Image.fromarray(inks, "CMYK").save(path, icc_profile=colour_profiles.cmyk_profile())
        found = read_picture(path).astype(int)
        assert (found[:, :12] > 240).all()
        assert (found[:, 28:] @ [2, -1, -1] > 200).all()  # reddish


def test_cameras_that_name_adobe_rgb_in_exif(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    stored = Image.fromarray(colour_profiles.encoded(MUTED, colour_profiles.ADOBE_RGB))
    stored.save(tmp_path / "_DSC1.jpg", exif=exif, quality=98, subsampling=0)
    assert np.abs(read_picture(tmp_path / "_DSC1.jpg").astype(int) - MUTED).mean() < 2


def in_file(path, pixels, primaries, transfer):
    """A picture whose file names its colours by code points."""
    picture = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    if path.suffix == ".png":
        plain = io.BytesIO()
        picture.save(plain, "png")
        chunks = png([(b"cICP", bytes([primaries, transfer, 0, 1]))])[8:]
        path.write_bytes(plain.getvalue()[:33] + chunks + plain.getvalue()[33:])  # behind the header
    else:
        picture.save(path, quality=95, subsampling="4:4:4")
        data, count = re.subn(
            rb"(?s)(colrnclx)....", rb"\1" + struct.pack(">HH", primaries, transfer), path.read_bytes()
        )
        assert count == 1
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["png", "avif"])
def test_hdr_comes_out_as_the_standard_picture(tmp_path, kind):
    for name, pixels, code in (
        ("pq", colour_profiles.in_pq(MUTED), 16),
        ("hlg", colour_profiles.in_hlg(MUTED), 18),
    ):
        assert np.abs(255 * pixels - MUTED).mean() > 9
        found = read_picture(in_file(tmp_path / f"{name}.{kind}", pixels, 9, code))
        assert np.abs(found.astype(int) - MUTED).mean() < 5  # with 8 bits of HDR
    p3 = colour_profiles.encoded(MUTED, colour_profiles.DISPLAY_P3) / 255
    found = read_picture(in_file(tmp_path / f"p3.{kind}", p3, 12, 13))
    assert np.abs(found.astype(int) - MUTED).mean() < 2
    found = read_picture(in_file(tmp_path / f"plain.{kind}", MUTED / 255, 1, 13))
    assert np.abs(found.astype(int) - MUTED).mean() < 2
    # What is brighter than white stays below it, in order
    ramp = np.repeat(np.linspace(0.3, 1, 64)[None, :, None], 40, 0) * np.ones(3)
    light = read_picture(in_file(tmp_path / f"lamp.{kind}", ramp, 9, 16))[20, :, 1].astype(int)
    assert light[0] < 80 and 240 < light[40] <= light[-1] and (np.diff(light) >= -2).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 30}])
def test_a_jpeg_without_its_end_mark_is_whole(tmp_path, options):
    noisy = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8) // 2 + 60
    path = tmp_path / "a.jpg"
    Image.fromarray(noisy).save(path, **options)
    whole, content = read_picture(path), path.read_bytes()
    assert content.endswith(b"\xff\xd9")
    for end in (b"", b"\xff", bytes(600)):
        path.write_bytes(content[:-2] + end)
        np.testing.assert_array_equal(read_picture(path), whole)
    for cut in (-5, -40, -2000, 1500):
        for end in (b"", b"\xff"):
            path.write_bytes(content[:cut] + end)
            with pytest.raises(HelloMemeError) as caught:
                read_picture(path, "driver")
            assert str(caught.value) == DAMAGED


def test_heic_pictures(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "IMG_1.HEIC"
    stored = Image.fromarray(colour_profiles.encoded(MUTED, colour_profiles.DISPLAY_P3)).resize((240, 160), 0)
    profile = colour_profiles.profile(colour_profiles.DISPLAY_P3)
    pillow_heif.from_pillow(stored).save(path, quality=95, icc_profile=profile)
    found = read_picture(path)
    assert found.shape == (160, 240, 3)
    close(found[70:150:8, 140:230:8], MUTED[18:38:2, 35:58:2][:10, :12], 6)

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image._reads_heic.cache_clear()
    try:
        with pytest.raises(HelloMemeError) as caught:
            read_picture(path, "driver")
    finally:
        image._reads_heic.cache_clear()
    assert str(caught.value) == (
        "The driver picture IMG_1.HEIC is an HEIC picture: run `pip install pillow-heif`, or save it as JPEG."
    )


def test_results_say_that_they_are_srgb(tmp_path):
    stamp = metadata.Stamp(metadata.Settings(), "demo")
    picture = Image.fromarray(TRUTH)
    files = [tmp_path / f"a{suffix}" for suffix in metadata.FORMATS]
    for path in files:
        metadata.save(picture, path, stamp)
        assert metadata.read(path) == stamp
    files.append(gradio_patches.save_pil_to_cache(with_metadata(picture, stamp), str(tmp_path), format="png"))
    for path in files:
        with Image.open(path) as saved:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(saved.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        assert np.abs(read_picture(path).astype(int) - TRUTH).mean() < 3
    metadata.save(picture, tmp_path / "again.png", stamp)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a.png").read_bytes()

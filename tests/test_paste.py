"""The result back in the whole reference picture: where it lies, what stays untouched, and that no seam
shows."""

import dataclasses
from fractions import Fraction

import clips
import numpy as np
import pytest
from PIL import Image

from hellomeme.face.crop import Crop
from hellomeme.face.paste import MAX_FADE, paste
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import ClipWriter, Sound, probe, read_frames
from hellomeme.pasted_clip import paste_clip
from hellomeme.settings import ClipSettings, Settings

CASES = [  # height, width, crop, size of the result
    (301, 203, Crop(20.3, 40.7, 150.4), 128),
    (97, 64, Crop(3.5, 10.25, 40), 128),
    (480, 640, Crop(100, 50, 300), 128),
    (700, 501, Crop(31.9, 120.2, 430.3), 512),
    (64, 64, Crop(0.4, 0.0, 63), 128),  # reaches three edges of the frame
]


def smooth(height, width):
    """Waves that bicubic sampling keeps."""
    y, x = np.mgrid[:height, :width] / 20
    return (
        np.stack([127 + 90 * np.sin(x), 127 + 90 * np.cos(y + x), 127 + 90 * np.sin(y)], 2)
        .round()
        .astype(np.uint8)
    )


def inside(frame, crop, by=0.0):
    """Pixels whose middle lies in the crop, deeper than `by`."""
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    depth = np.minimum.reduce(
        [x - crop.left, y - crop.top, crop.left + crop.side - x, crop.top + crop.side - y]
    )
    return depth > by


@pytest.mark.parametrize("feather", [0, 0.5, 1])
@pytest.mark.parametrize("height, width, crop, size", CASES)
def test_what_is_outside_of_the_crop_is_untouched(height, width, crop, size, feather):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    before = frame.copy()
    result = paste(frame, crop, np.full((size, size, 3), 255, np.uint8), feather)
    assert result.shape == frame.shape and result.dtype == np.uint8 and np.array_equal(frame, before)
    outside = ~inside(frame, crop, -1 if crop.side == 63 else 0)
    assert np.array_equal(result[outside], frame[outside])
    deep = inside(frame, crop, MAX_FADE * crop.side)
    assert deep.any() and (result[deep] == 255).all()


@pytest.mark.parametrize("height, width, crop, size", CASES)
def test_it_lies_where_it_was_cut_out(height, width, crop, size):
    frame = smooth(height, width)
    error = [
        np.abs(paste(frame, place, crop.apply(frame, size), feather=0).astype(int) - frame)
        for place in (crop, Crop(crop.left, crop.top + 1, crop.side))
    ]
    assert error[0].max() <= 6
    assert error[1].mean() > 3 * error[0].mean()  # one pixel further the comparison shows it


def test_a_hard_edge_is_hard_and_a_soft_one_has_no_seam():
    frame = np.full((200, 300, 3), 100, np.uint8)
    bright = np.full((128, 128, 3), 180, np.uint8)
    crop = Crop(50, 20, 160)
    hard, soft, softest = (paste(frame, crop, bright, feather) for feather in (0, 0.5, 1))
    assert set(np.unique(hard)) == {100, 180} and (hard == 180).sum() == 3 * 160 * 160
    steps = [
        max(np.abs(np.diff(picture.astype(int), axis=axis)).max() for axis in (0, 1))
        for picture in (soft, softest)
    ]
    assert steps[0] <= 8 and steps[1] <= 4  # of 80; over 20 and 40 px
    assert soft.sum() < hard.sum() and softest.sum() < soft.sum()


def test_nothing_fades_at_the_edge_of_the_frame_itself():
    frame = np.zeros((100, 140, 3), np.uint8)
    result = paste(frame, Crop(0, 0.6, 99), np.full((128, 128, 3), 200, np.uint8), feather=1)
    assert (result[:, :40] == 200).all()  # top, bottom and left are edges of the frame
    assert result[50, 98, 0] < 5 and (result[:, 99:] == 0).all()


def test_a_larger_result_is_averaged_not_thinned_out():
    lines = np.zeros((512, 512, 3), np.uint8)
    lines[:, ::2] = 255
    result = paste(np.full((128, 128, 3), 127, np.uint8), Crop(20, 20, 64), lines, feather=0)
    assert np.abs(result[22:82, 22:82].astype(int) - 127).max() < 8


def test_the_same_as_resizing_where_pixels_fit():
    picture = np.random.default_rng(1).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    result = paste(np.zeros((400, 400, 3), np.uint8), Crop(100, 60, 256), picture, feather=0)
    bicubic = np.asarray(Image.fromarray(picture).resize((256, 256), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(result[64:312, 104:352], bicubic[4:-4, 4:-4])


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_clip_is_pasted_back_frame_by_frame(tmp_path, side_by_side):
    """With its sound and settings; of the pictures side by side only the last one."""
    frame, crop = smooth(120, 210), Crop(60, 20, 80)
    faces = [np.full((64, 64, 3), 40 + 20 * number, np.uint8) for number in range(6)]
    stamp = metadata.Stamp(Settings(seed=7, guidance=1, steps=1), "demo", ClipSettings())
    sound = Sound(clips.clip(tmp_path / "sound.mp4", sound=1), Fraction(0), Fraction(1, 2))
    clip = tmp_path / "clip.mp4"
    with ClipWriter(clip, Fraction(12), sound, stamp.clip_tags) as writer:
        for face in faces:
            writer.write(np.concatenate([255 - face, face], axis=1) if side_by_side else face)
    done = []
    output = tmp_path / "whole.mp4"
    paste_clip(clip, frame, crop, output, 0, lambda *count: done.append(count))
    pasted = list(read_frames(output, Fraction(12)))
    assert len(pasted) == 6 and done == [(number, 6) for number in range(1, 7)]
    for face, found in zip(faces, pasted, strict=True):
        difference = np.abs(found.astype(int) - paste(frame, crop, face, 0))
        assert found.shape == frame.shape and difference.mean() < 3
    assert clips.has_sound(output) and probe(output).rate == 12
    expected = dataclasses.replace(stamp, settings=dataclasses.replace(stamp.settings, feather=0))
    assert metadata.read(output) == expected


def test_a_clip_in_a_large_picture_is_reduced(tmp_path):
    with ClipWriter(tmp_path / "clip.mp4", Fraction(12)) as writer:
        writer.write(np.full((64, 64, 3), 200, np.uint8))
    frame = np.zeros((1000, 2500, 3), np.uint8)
    paste_clip(tmp_path / "clip.mp4", frame, Crop(1250, 0, 500), tmp_path / "whole.mp4", 0)
    (pasted,) = read_frames(tmp_path / "whole.mp4", Fraction(12))
    assert pasted.shape == (768, 1920, 3)
    lit = np.argwhere(pasted.mean(axis=2) > 100)
    np.testing.assert_allclose([*lit.min(axis=0), *lit.max(axis=0)], [0, 960, 383, 1343], atol=2)

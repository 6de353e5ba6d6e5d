"""Clips of camcorders, recorders and telephones: times, streams, shapes and colours that other files lack.

A stream that is copied from one container to another has the same pictures, so they are compared exactly.
"""

import itertools
from fractions import Fraction

import colour_profiles
import numpy as np
import pytest
from clips import ffmpeg, samples
from test_clip import face_at

from hellomeme.face.track import analyse
from hellomeme.io.ffmpeg import ClipWriter, Sound, probe, read_frames
from hellomeme.settings import ClipSettings
from hellomeme.video import Selection

B_FRAMES = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-bf", 2, "-g", 250, "-pix_fmt", "yuv420p"],
    "mpeg4": ["-c:v", "mpeg4", "-bf", 2, "-q:v", 3],
    "mpeg2": ["-c:v", "mpeg2video", "-bf", 2, "-q:v", 3],
}
SOURCE = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=24:d=1.2", "-f", "lavfi", "-i", "sine=d=1.2"]


def read(path, **chosen):
    return list(read_frames(path, probe(path).rate, **chosen))


def same(frames, truth):
    assert len(frames) == len(truth)
    for frame, true in zip(frames, truth, strict=True):
        np.testing.assert_array_equal(frame, true)


@pytest.mark.parametrize(
    "codec, name", [("h264", "a.avi"), ("mpeg4", "a.avi"), ("mpeg2", "a.mpg"), ("h264", "a.mpg")]
)
def test_every_frame_is_there_where_packets_have_no_time_of_their_own(tmp_path, codec, name):
    """B-frames in AVI and in a program stream: in order, once each, with the sound."""
    path, truth = tmp_path / name, tmp_path / "truth.mkv"
    for file in (path, truth):
        ffmpeg(*SOURCE, *B_FRAMES[codec], "-threads", 1, "-c:a", "mp2", file)
    info = probe(path)
    assert info.rate == 24 and info.frames in (29, 30)
    expected, frames = list(read_frames(truth, Fraction(24))), list(read_frames(path, info.rate))
    same(frames[len(frames) - 29 :], expected)  # sound that begins earlier holds the first frame
    same(list(read_frames(path, info.rate, Fraction(1, 2))), frames[12:])
    with ClipWriter(tmp_path / "out.mp4", info.rate, Sound(path, Fraction(0), info.seconds)) as writer:
        for frame in frames:
            writer.write(frame)
    assert abs(len(samples(tmp_path / "out.mp4")) / 8000 - 1.2) < 0.08


def test_a_transport_stream_has_the_frames_that_are_in_it(tmp_path):
    """The sound begins earlier by the delay of its encoder; a recording cut in its first pictures keeps its
    rate."""
    ffmpeg(*SOURCE, *B_FRAMES["h264"], "-g", 12, "-c:a", "aac", tmp_path / "a.ts")
    info = probe(tmp_path / "a.ts")
    assert (info.rate, info.frames, info.constant) == (24, 29, True)
    frames = list(read_frames(tmp_path / "a.ts", info.rate))
    assert len(frames) == 29 and not any(np.array_equal(a, b) for a, b in itertools.pairwise(frames))
    whole = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[:564] + whole[188 * 40 :])  # its tables stay
    cut = probe(tmp_path / "cut.ts")
    assert (cut.rate, cut.constant) == (24, True) and 10 < cut.frames < 29
    same(list(read_frames(cut.path, cut.rate))[-8:], frames[-8:])


def flash_and_beep(path, late):
    """A flash and a beep 1 s after the picture begins, which is `late` s after the sound."""
    flash = "color=black:s=64x64:r=25:d=2,geq=lum='if(between(T,1,1.2),235,16)':cb=128:cr=128"
    beep = f"aevalsrc='between(t,{1 + late},{1.2 + late})*sin(6000*t)':d={2 + late}:s=44100"
    inputs = ["-itsoffset", late, "-f", "lavfi", "-i", flash, "-f", "lavfi", "-i", beep]
    ffmpeg(*inputs, "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "mp2", path)
    return path


def made(path, output):
    """What `make_clip` does with the frames and the sound of a driver, unchanged. Returns (frames, s of the
    flash, s of the beep)."""
    info = probe(path)
    selection = Selection.of(info.seconds, info.rate, ClipSettings())
    with ClipWriter(output, info.rate, Sound(path, selection.start, selection.count / info.rate)) as writer:
        for frame in read_frames(path, info.rate, selection.start, selection.count):
            writer.write(frame)
    seen = [frame.mean() for frame in read_frames(output, info.rate)]
    sound = np.abs(samples(output)) > 0.2
    return (
        len(seen),
        np.argmax(np.array(seen) > 128) / info.rate,
        np.argmax(sound) / 8000 if sound.any() else None,
    )


@pytest.mark.parametrize("name, late", [("a.ts", 0.6), ("a.ts", 0), ("a.mkv", 0.6), ("a.mpg", 0.6)])
def test_sound_and_picture_that_begin_apart_stay_together(tmp_path, name, late):
    path = flash_and_beep(tmp_path / name, late)
    frames, flash, beep = made(path, tmp_path / "out.mp4")
    assert abs(frames - 25 * (2 + late)) <= 2
    assert abs(flash - (1 + late)) < 0.1 and abs(flash - beep) <= 0.05


@pytest.mark.parametrize("default, heard", [(1, False), (2, True), (None, False)])
def test_the_sound_is_that_which_is_marked_as_default(tmp_path, default, heard):
    """Of two tracks, of which the first is silent; the first if none is marked."""
    inputs = ["-f", "lavfi", "-i", "color=s=64x64:r=25:d=0.4"]
    for source in ("anullsrc=d=0.4", "aevalsrc=sin(3000*t):d=0.4"):
        inputs += ["-t", 0.4, "-f", "lavfi", "-i", source]
    flags = [
        word for k in range(2) for word in (f"-disposition:a:{k}", "default" if k + 1 == default else "0")
    ]
    path = tmp_path / ("a.mkv" if default is None else "a.mp4")
    ffmpeg(*inputs, "-map", 0, "-map", 1, "-map", 2, "-c:v", "libx264", "-c:a", "aac", *flags, path)
    with ClipWriter(tmp_path / "out.mp4", Fraction(5), Sound(path, Fraction(0), Fraction(2, 5))) as writer:
        for _ in range(2):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    assert (np.abs(samples(tmp_path / "out.mp4")).max() > 0.5) == heard


@pytest.mark.parametrize("keys", [20, 250])
def test_a_start_between_key_frames(tmp_path, keys):
    """As the same stream in MP4, which has an index; also where there is one key frame only."""
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2"]
    ffmpeg(*source, *B_FRAMES["h264"], "-g", keys, tmp_path / "a.mp4")
    everything = list(read_frames(tmp_path / "a.mp4", Fraction(25)))
    assert len(everything) == 50
    for name, start in (("a.mp4", 1.36), ("a.ts", 0.48), ("a.ts", 1.36), ("a.mkv", 1.36)):
        path = tmp_path / name
        if not path.exists():
            ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", path)
        frames = list(read_frames(path, Fraction(25), Fraction(start).limit_denominator(100)))
        same(frames, everything[round(start * 25) :])


def test_clocks_that_start_anew_and_pass_their_end(tmp_path):
    first = flash_and_beep(tmp_path / "a.ts", 0)
    (tmp_path / "twice.ts").write_bytes(2 * first.read_bytes())
    frames, flash, beep = made(tmp_path / "twice.ts", tmp_path / "out.mp4")
    assert abs(frames - 100) <= 3 and abs(flash - 1) < 0.1 and abs(flash - beep) <= 0.05
    seen = np.array([frame.mean() > 128 for frame in read_frames(tmp_path / "out.mp4", Fraction(25))])
    heard = np.abs(samples(tmp_path / "out.mp4")) > 0.2
    assert abs(seen[50:].argmax() / 25 - heard[16000:].argmax() / 8000) <= 0.06
    wrapping = tmp_path / "wraps.ts"
    ffmpeg("-i", first, "-c", "copy", "-output_ts_offset", 2**33 / 90000 - 1, wrapping)
    frames, flash, beep = made(wrapping, tmp_path / "out.mp4")
    assert abs(frames - 50) <= 2 and abs(flash - 1) < 0.1 and abs(flash - beep) <= 0.05


def test_interlaced_frames_become_progressive(tmp_path):
    """A bar that moves 8 px between the two moments of a frame: no comb is left of it."""
    moving = "color=black:s=128x96:r=50:d=1,geq=lum='if(between(mod(X-8*N,128),0,31),235,16)':cb=128:cr=128"
    for codec in (
        ["-c:v", "libx264", "-flags", "+ildct+ilme"],
        ["-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", 2],
    ):
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            moving,
            "-vf",
            "interlace=lowpass=off",
            *codec,
            "-pix_fmt",
            "yuv420p",
            tmp_path / "a.mkv",
        )
        info, frames = probe(tmp_path / "a.mkv"), read(tmp_path / "a.mkv")
        assert info.frames == len(frames) == 25
        comb = [np.abs(np.diff(frame[8:-8, :, 1].astype(int), axis=0)).mean() for frame in frames[1:-1]]
        assert max(comb) < 6  # 27 as it is stored


def joined(path, *parts):
    """One transport stream after another."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


class Oval:
    """Finds the face where a picture is bright."""

    def faces(self, frame, thorough=False):
        places = np.argwhere(frame[..., 1] > 128)
        (top, left), (bottom, right) = places.min(0), places.max(0)
        return [face_at(np.array([left + right, top + bottom]) / 2, (bottom - top) / 2, 0.5, 0.1)]

    def near(self, frame, face):
        return self.faces(frame)[0]


def test_a_telephone_that_is_turned_while_it_records(tmp_path):
    """The shape changes in mid-stream, and so does the flag that says how a picture is to be turned."""
    part = "color=black:s={}:r=25:d=1,geq=lum='if(lt(hypot(X-{},Y-{}),{}),235,16)':cb=128:cr=128"
    for name, values in (("wide", ("160x96", 100, 48, 18)), ("high", ("96x160", 48, 60, 18))):
        ffmpeg("-f", "lavfi", "-i", part.format(*values), *B_FRAMES["h264"], tmp_path / f"{name}.ts")
    path = joined(tmp_path / "turned.ts", tmp_path / "wide.ts", tmp_path / "high.ts")
    frames = read(path)
    shapes = [frame.shape[:2] for frame in frames]
    assert abs(len(frames) - 50) <= 2 and set(shapes[:24]) == {(96, 160)} and set(shapes[-24:]) == {(160, 96)}
    for frame in frames:  # a circle is a circle
        places = np.argwhere(frame[..., 1] > 128)
        assert np.abs(np.ptp(places, axis=0) - 36).max() <= 3
    motion, crop = analyse(iter(frames), Fraction(25), Oval(), 1.5)
    assert motion.valid.all()
    assert np.ptp(motion.origin, axis=0).max() < 12 and np.ptp(motion.scale) / motion.scale.mean() < 0.1
    for frame in (frames[0], frames[-1]):
        seen = np.argwhere(crop.apply(frame, 64)[..., 1] > 128)
        assert np.abs(np.ptp(seen, axis=0) - 64 / 1.5).max() < 5

    flag = ["-bsf:v", "h264_metadata=display_orientation=insert:rotate=90"]
    ffmpeg("-i", tmp_path / "wide.ts", "-c", "copy", *flag, tmp_path / "flagged.ts")
    frames = read(joined(tmp_path / "again.ts", tmp_path / "wide.ts", tmp_path / "flagged.ts"))
    assert frames[0].shape == (96, 160, 3) and frames[-1].shape == (160, 96, 3)
    assert np.abs(frames[-1].astype(int) - np.rot90(frames[0])).mean() < 2


@pytest.mark.parametrize(
    "transfer, encode", [("smpte2084", colour_profiles.in_pq), ("arib-std-b67", colour_profiles.in_hlg)]
)
def test_hdr_clips_look_as_their_standard_twins(tmp_path, transfer, encode):
    picture = np.zeros((64, 96, 3), np.uint8)
    for k, colour in enumerate([(60, 60, 60), (200, 150, 120), (90, 120, 180), (150, 170, 90)]):
        picture[:, 24 * k : 24 * k + 24] = colour
    deep = np.round(encode(picture) * 65535).astype("<u2")
    (tmp_path / "a.rgb").write_bytes(deep.tobytes() * 3)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "96x64", "-r", "25", "-i", tmp_path / "a.rgb"]
    convert = "scale=out_color_matrix=bt2020:out_range=tv,format=yuv444p10le"
    tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc"
    codec = ["-c:v", "libx265", "-x265-params", "log-level=none:lossless=1"]
    ffmpeg(*source, "-vf", f"{convert},{tags}", *codec, tmp_path / "a.mp4")
    frames = read(tmp_path / "a.mp4")
    assert len(frames) == 3
    assert np.abs(255 * encode(picture) - picture).mean() > 9
    assert np.abs(frames[1].astype(int) - picture).mean() < 4

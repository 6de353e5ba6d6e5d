"""Reading and writing clips, of every kind that people have."""

import itertools
import os
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from clips import H264, KINDS, NTSC, VP9, clip, ffmpeg, has_sound, samples, stamps, turned, variable
from imageio_ffmpeg import get_ffmpeg_exe

from hellomeme.errors import HelloMemeError
from hellomeme.io.ffmpeg import ClipWriter, Sound, probe, read_frames


def colours(count, size=(64, 96)):
    """Plain pictures, each of its own brightness."""
    for k in range(count):
        yield np.full((*size, 3), 20 + 200 * k // max(count, 2), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_whole(kind, tmp_path):
    name, options, rate, size, frames = KINDS[kind]
    path = clip(tmp_path / name, **options)
    info = probe(path)
    assert (info.rate, info.frames, info.constant) == (rate, frames, True)
    read = list(read_frames(path, info.rate))
    assert len(read) == frames and {frame.shape for frame in read} == {(*size, 3)}
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(read))  # none is taken twice


def test_a_variable_rate_becomes_constant_in_time(tmp_path):
    info = probe(variable(tmp_path / "a.mp4"))
    assert not info.constant and info.rate == 12 and abs(info.seconds - 2) < 0.1
    read = list(read_frames(info.path, Fraction(30)))
    assert abs(len(read) - 60) <= 2
    changes = [t for t, (a, b) in enumerate(itertools.pairwise(read), 1) if not np.array_equal(a, b)]
    assert changes[:4] == [2, 4, 6, 8] and {30, 33, 36} <= set(changes) and not {31, 32, 34} & set(changes)


def test_a_turned_clip_stands_upright(tmp_path):
    straight = list(read_frames(clip(tmp_path / "s.mp4"), Fraction(25)))
    flagged = list(read_frames(turned(tmp_path / "a.mp4"), Fraction(25)))
    assert flagged[0].shape == (96, 64, 3)
    np.testing.assert_array_equal(flagged[0], np.rot90(straight[0]))


def test_frames_from_a_start_and_at_another_rate(tmp_path):
    path = clip(tmp_path / "a.mp4", rate=30, seconds=2)
    everything = list(read_frames(path, Fraction(30)))
    some = list(read_frames(path, Fraction(15), Fraction(1), 5))
    assert len(some) == 5
    for k, frame in enumerate(some):
        np.testing.assert_array_equal(frame, everything[30 + 2 * k])


def test_large_clips_are_reduced_on_reading(tmp_path):
    path = clip(tmp_path / "a.mp4", size="2560x1280", seconds=0.1, codec=H264)
    assert next(read_frames(path, Fraction(25))).shape == (960, 1920, 3)


def test_a_reader_that_is_left_ends_ffmpeg(tmp_path):
    frames = read_frames(clip(tmp_path / "a.mp4", seconds=20), Fraction(25))
    next(frames)
    process = frames.gi_frame.f_locals["process"]
    frames.close()
    assert process.returncode is not None


def test_bad_clips_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("This is not a clip.")
    (tmp_path / "folder.mp4").mkdir()
    whole = clip(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{whole}\n")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "sound.m4a")
    cannot = "The driver clip {} is not a clip that can be read: choose an MP4, MOV, WebM or GIF file."
    for name in ("text.mp4", "cut.mp4", "list.m3u8", "sound.m4a"):
        with pytest.raises(HelloMemeError) as error:
            probe(tmp_path / name)
        assert str(error.value) == cannot.format(name)
    for name, why in (("folder.mp4", "is a folder"), ("missing.mp4", "does not exist")):
        with pytest.raises(HelloMemeError, match=why):
            probe(tmp_path / name)
    with pytest.raises(HelloMemeError, match="is only 30 x 20 pixels: choose one of at least 32 x 32"):
        list(read_frames(clip(tmp_path / "small.mp4", size="30x20"), Fraction(25)))


def test_a_cut_off_download_delivers_what_is_there(tmp_path):
    path = clip(tmp_path / "a.webm", seconds=2, codec=VP9)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert 10 < len(list(read_frames(path, probe(path).rate))) < 50


def test_what_is_written_can_be_played(tmp_path):
    """H.264, 4:2:0, the index before the data, exact rate, and every frame as it was given."""
    path = tmp_path / "out.mp4"
    with ClipWriter(path, NTSC) as writer:
        for frame in colours(30, (65, 97)):
            writer.write(frame)
    received = subprocess.run(
        [get_ffmpeg_exe(), "-nostdin", "-i", path], capture_output=True, text=True
    ).stderr
    assert "h264" in received and "yuv420p(tv, bt709" in received and "98x66" in received
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    times, lengths = stamps(path)
    assert times == [k / NTSC for k in range(30)] and set(lengths) == {1 / NTSC}
    for got, given in zip(read_frames(path, NTSC), colours(30), strict=True):
        assert abs(float(got[:64, :96].mean()) - given.mean()) < 3
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_chromium_plays_what_is_written(tmp_path):
    """To its end, sound included; the browser of the system or of playwright, where there is one."""
    sync_api = pytest.importorskip("playwright.sync_api")
    driver = clip(tmp_path / "a.mp4", sound=1)
    with ClipWriter(tmp_path / "out.mp4", Fraction(25), Sound(driver, Fraction(0), Fraction(1))) as writer:
        for frame in colours(25, (65, 97)):
            writer.write(frame)
    (tmp_path / "page.html").write_text('<video src="out.mp4" muted></video>')
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {error}")
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        ended = """async () => {
            const video = document.querySelector('video');
            const over = new Promise((done, fail) => {
                video.onended = done;
                video.onerror = () => fail(video.error.message);
            });
            await video.play(); await over;
            const heard = video.webkitAudioDecodedByteCount > 0;
            return [video.videoWidth, video.videoHeight, video.duration, heard];
        }"""
        width, height, seconds, heard = page.evaluate(ended)
        browser.close()
    assert (width, height, heard) == (98, 66, True) and abs(seconds - 1) < 0.06


@pytest.mark.parametrize("sound, expected", [(3, 1), (0.5, 0.5)])
def test_sound_is_trimmed_to_the_picture(tmp_path, sound, expected):
    driver = clip(tmp_path / "a.mp4", seconds=1, sound=sound)
    with ClipWriter(tmp_path / "out.mp4", Fraction(25), Sound(driver, Fraction(0), Fraction(1))) as writer:
        for frame in colours(25):
            writer.write(frame)
    assert len(stamps(tmp_path / "out.mp4")[0]) == 25
    assert abs(len(samples(tmp_path / "out.mp4")) / 8000 - expected) < 0.05


def test_sound_begins_with_the_start(tmp_path):
    """A beep one second in is heard half a second after a start at 0.5."""
    driver = tmp_path / "a.mp4"
    beep = "aevalsrc='gt(t,1)*sin(6000*t)':d=3:s=44100"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=3", "-f", "lavfi", "-i", beep, *H264, driver)
    with ClipWriter(tmp_path / "out.mp4", Fraction(25), Sound(driver, Fraction(1, 2), Fraction(1))) as writer:
        for frame in colours(25):
            writer.write(frame)
    heard = np.flatnonzero(np.abs(samples(tmp_path / "out.mp4")) > 0.2)[0] / 8000
    assert abs(heard - 0.5) < 0.02


def test_a_clip_without_sound_stays_silent(tmp_path):
    driver = clip(tmp_path / "a.gif", rate=10, codec=[])
    with ClipWriter(tmp_path / "out.mp4", Fraction(10), Sound(driver, Fraction(0), Fraction(1))) as writer:
        for frame in colours(10):
            writer.write(frame)
    assert not has_sound(tmp_path / "out.mp4")


def test_nothing_is_left_of_a_clip_that_was_given_up(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"an older one")
    with pytest.raises(KeyboardInterrupt), ClipWriter(tmp_path / "out.mp4", Fraction(25)) as writer:
        for frame in colours(10):
            writer.write(frame)
        folder = writer._folder
        assert folder.is_dir()
        raise KeyboardInterrupt
    assert not folder.exists()
    assert (tmp_path / "out.mp4").read_bytes() == b"an older one"
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


CRASH = """
import os, sys, numpy as np
from fractions import Fraction
from hellomeme.io.ffmpeg import ClipWriter
with ClipWriter(sys.argv[1], Fraction(25)) as writer:
    for _ in range(200):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills itself with a POSIX signal")
def test_nothing_is_left_where_a_crash_happened(tmp_path):
    run = subprocess.run([sys.executable, "-c", CRASH, tmp_path / "out.mp4"], env=_environment(tmp_path))
    assert run.returncode == -9
    assert [file.name for file in tmp_path.iterdir()] == ["temporary"]


def test_an_encoder_that_fails_says_so(tmp_path):
    with (
        pytest.raises(HelloMemeError, match="could not be encoded"),
        ClipWriter(tmp_path / "o.mp4", Fraction(25)) as writer,
    ):
        writer.write(np.zeros((64, 64, 3), np.uint8))
        writer._process.kill()
        for frame in itertools.repeat(np.zeros((64, 64, 3), np.uint8), 1000):
            writer.write(frame)
    assert not list(tmp_path.iterdir())


def _environment(folder):
    (folder / "temporary").mkdir()
    return {**os.environ, "TMPDIR": str(folder / "temporary"), "PYTHONPATH": os.pathsep.join(sys.path)}

"""Clips as streams of frames, read and written through the ffmpeg that imageio-ffmpeg brings along.

Nothing here holds more than a frame or two. Rates are exact fractions: 29.97 is 30000/1001.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import HelloMemeError
from .atomic import draft_of, remove_left

LONGEST = 1920  # px: larger clips are reduced to this while they are read; the networks see 512 at most
SHORTEST = 32  # px: less cannot show a face
# What ffmpeg may take a file for: containers only, no playlists, which could make it open other files or
# addresses.
CONTAINERS = "mov,matroska,webm,gif,avi,mpegts,mpeg,flv,ogg,asf,3gp,ivf"
STEADY_RATES = (8, 10, 12, 15, 24, 25, 30, 50, 60, *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60)))
# What the folders begin with in which clips are encoded, followed by the number of the process
DRAFTS = "hellomeme-"
RATE_OF_ONE = Fraction(25)  # of a single frame without a duration


@dataclass(frozen=True)
class ClipInfo:
    """rate: frames a second, exact; of a clip with a variable rate, the common rate nearest to its average.
    seconds: from the start of the file to the end of the last frame. steady: whether the rate is constant."""

    path: Path
    rate: Fraction
    seconds: Fraction
    steady: bool

    @property
    def frames(self) -> int:
        """How many frames it has at its rate; a damaged file may deliver fewer."""
        return max(round(self.seconds * self.rate), 1)


@dataclass(frozen=True)
class Sound:
    """The sound of a clip from `start` on, for `seconds`."""

    path: Path
    start: Fraction
    seconds: Fraction


def probe(path: str | Path, name: str = "driver") -> ClipInfo:
    """Rate and length of a clip, from the time stamps of all its pictures, without decoding any.

    Raises HelloMemeError, one sentence that calls the clip by `name`, for whatever is no clip.
    """
    path = Path(path)
    if path.is_dir():
        raise HelloMemeError(f"The {name} clip {path} is a folder: choose a clip in it.")
    if not path.is_file():
        raise HelloMemeError(f"The {name} clip {path} does not exist: check the path.")
    if not os.access(path, os.R_OK):
        raise HelloMemeError(f"The {name} clip {path} may not be read: change its permissions.")
    told = subprocess.run(
        [*_ffmpeg(), *_input(path), "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ).stdout.splitlines()
    tick = next((Fraction(line.split(":")[1].strip()) for line in told if line.startswith("#tb 0")), None)
    # stream, dts, pts, duration, ...
    packets = [line.split(",") for line in told if not line.startswith("#")]
    stamps = sorted((int(pts if _number(pts) else dts), int(length)) for _, dts, pts, length, *_ in packets)
    if tick is None or not stamps:
        raise HelloMemeError(
            f"The {name} clip {path.name} is not a clip that can be read: choose an MP4, MOV, WebM "
            "or GIF file."
        )
    times = [pts for pts, _ in stamps]
    rate, steady = _rate(times, stamps[-1][1], tick)
    last = stamps[-1][1] * tick if 0 < stamps[-1][1] * tick * rate < 100 else 1 / rate
    return ClipInfo(path, rate, max(times[-1] * tick + last, 1 / rate), steady)


def read_frames(
    path: str | Path,
    rate: Fraction,
    start: Fraction = Fraction(0),
    count: int | None = None,
    name: str = "driver",
) -> Iterator[np.ndarray]:
    """The frames from `start` seconds on, upright and with square pixels, as (H, W, 3) uint8 RGB.

    rate: frames a second to take; what is shown at each moment is taken twice or left out as needed, so that
    a variable rate becomes a constant one in time with the sound. count: at most so many, None for all.
    Raises HelloMemeError if there is not one frame, or if they are smaller than 32 px.
    """
    shrink = f"min(1,{LONGEST}/max(iw*sar,ih))"
    filters = (
        f"fps={rate.numerator}/{rate.denominator}:start_time=0,"
        f"scale='max(2,round(iw*sar*{shrink}))':'max(2,round(ih*{shrink}))':flags=bicubic,setsar=1"
    )
    seek = ["-ss", f"{float(start):.6f}"] if start else []
    limit = [] if count is None else ["-frames:v", str(count)]
    command = [
        *_ffmpeg(), *seek, *_input(Path(path)), "-map", "0:V:0", "-vf", filters, *limit,
        "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-",
    ]  # fmt: skip  # ffmpeg's options stay beside their values
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=1 << 20
    )
    frames = 0
    try:
        while (frame := _read_ppm(process.stdout)) is not None:
            if min(frame.shape[:2]) < SHORTEST:
                raise HelloMemeError(
                    f"The {name} clip is only {frame.shape[1]} x {frame.shape[0]} pixels: choose one "
                    f"of at least {SHORTEST} x {SHORTEST}."
                )
            frames += 1
            yield frame
        if not frames:
            raise HelloMemeError(
                f"The {name} clip {Path(path).name} has no picture that can be read: save or "
                "download it again."
            )
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


class ClipWriter:
    """Writes frames as H.264, yuv420p, for playing while it loads, with the sound of another clip if that has
    any.

    Used as a context manager. The file takes its place when the block ends well; until then it grows in the
    system's folder for temporary files, so that after an error, a stop or a crash nothing of it is at `path`.
    What a crash leaves among the temporary files goes when the next clip is begun.
    """

    def __init__(
        self, path: str | Path, rate: Fraction, sound: Sound | None = None, metadata: Sequence[str] = ()
    ):
        """metadata: ffmpeg's arguments for what the file says of itself, from
        `metadata.Stamp.clip_arguments`."""
        self.path, self.rate, self.sound, self.metadata = Path(path), rate, sound, metadata
        self._process = self._listener = self._folder = None
        self._said: deque[bytes] = deque(maxlen=20)  # its last lines
        self.frames = 0

    def __enter__(self) -> ClipWriter:
        try:
            remove_left(Path(tempfile.gettempdir()), DRAFTS)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{DRAFTS}{os.getpid()}-"))
        except OSError as error:
            raise self._failure(error.strerror or str(error)) from error
        return self

    def write(self, frame: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB; all frames of one size, of which an odd side is continued by a black line."""
        if self._process is None:
            self._start(*frame.shape[:2])
        try:
            self._process.stdin.write(np.ascontiguousarray(frame))
        except OSError as error:
            raise self._failure(self._last_words()) from error
        self.frames += 1

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is not None or self._process is None:
                return
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            if self._process.wait() != 0:
                raise self._failure(self._last_words())
            with draft_of(self.path, "clip") as draft:  # in one step also where that is on another disk
                shutil.move(self._draft, draft)
        finally:
            if self._process is not None:
                self._process.kill()
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
                self._process.wait()
                self._listener.join()
                self._process.stderr.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _draft(self) -> Path:
        return self._folder / "clip.mp4"

    def _start(self, height: int, width: int) -> None:
        rate = f"{self.rate.numerator}/{self.rate.denominator}"
        sound, mapped = [], []
        if self.sound is not None:
            start, seconds = float(self.sound.start), float(self.sound.seconds)
            sound = ["-ss", f"{start:.6f}", "-t", f"{seconds:.6f}", *_input(self.sound.path)]
            # a late or broken stretch of sound is filled with silence instead of moving what follows
            mapped = ["-map", "1:a:0?", "-af", "aresample=async=1:first_pts=0", "-c:a", "aac", "-b:a", "160k"]
        colours = [
            "-colorspace",
            "bt709",
            "-color_primaries",
            "bt709",
            "-color_trc",
            "bt709",
            "-color_range",
            "tv",
        ]
        command = [
            *_ffmpeg(), "-y",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-",
            *sound, "-map", "0:v:0", *mapped, "-c:v", "libx264", "-preset", "medium", "-crf", "17",
            "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
            *colours, "-movflags", "+faststart", *self.metadata, str(self._draft),
        ]  # fmt: skip  # ffmpeg's options stay beside their values
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe)
        # kept in memory, as the disk may be what is full
        self._listener = threading.Thread(target=self._said.extend, args=[self._process.stderr], daemon=True)
        self._listener.start()

    def _last_words(self) -> str:
        """Why ffmpeg ended: its last line, unless an earlier one says that the disk is full."""
        self._process.wait()
        self._listener.join()
        lines = [re.sub(r"^(\[[^]]*\] )+", "", line.decode(errors="replace").strip()) for line in self._said]
        full = os.strerror(errno.ENOSPC)
        return full if any(full in line for line in lines) else (lines or ["ffmpeg gave no reason"])[-1]

    def _failure(self, why: str) -> HelloMemeError:
        return HelloMemeError(f"The clip {self.path} could not be encoded: {why.rstrip('.')}.")


def _ffmpeg() -> list[str]:
    import imageio_ffmpeg

    return [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin"]


def _input(path: Path) -> list[str]:
    """A file and nothing but a file, whatever its name looks like or its content asks for."""
    return ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i", f"file:{path.absolute()}"]


def _number(text: str) -> bool:
    return text.strip().lstrip("-").isdigit()


def _rate(times: list[int], length: int, tick: Fraction) -> tuple[Fraction, bool]:
    """(frames a second, whether they keep to it) of sorted time stamps in ticks; `length` is the last
    frame's."""
    steps, span = len(times) - 1, times[-1] - times[0]
    if not steps or not span:
        alone = 1 / (length * tick) if length > 0 else RATE_OF_ONE
        return (alone if 1 <= alone <= 240 else RATE_OF_ONE), True
    step = Fraction(span, steps)
    average = 1 / (step * tick)
    slack = max(1.5, 0.02 * step)  # ticks: a container that counts milliseconds rounds
    if any(abs(time - times[0] - i * step) > slack for i, time in enumerate(times)):
        return Fraction(min(STEADY_RATES, key=lambda rate: abs(rate - average))), False
    whole = max(round(average), 1)
    rates = [Fraction(number * 1000, below) for number in (whole, whole + 1) for below in (1000, 1001)]
    nearest = min(rates, key=lambda rate: abs(rate - average))
    if abs(nearest / average - 1) <= Fraction(3, 2) / span:
        return nearest, True
    return average.limit_denominator(1001), True


def _read_ppm(stream) -> np.ndarray | None:
    """The next picture of a stream of PPM files, or None at its end."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()  # the largest value, 255
    pixels = stream.read(3 * width * height)
    if len(pixels) < 3 * width * height:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

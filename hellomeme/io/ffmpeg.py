"""Clips as streams of frames, read and written by the ffmpeg binary of imageio-ffmpeg.

At most two frames are in memory at a time. Rates are exact fractions: 29.97 is 30000/1001.
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
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..errors import HelloMemeError
from .atomic import atomic_write, remove_stale
from .image import MIN_SIDE

MAX_SIDE = 1920  # px: larger clips are reduced to this while they are read; the networks see at most 512
# Formats that ffmpeg may detect: no playlists, since they could make it open other files or addresses.
CONTAINERS = "mov,matroska,webm,gif,avi,mpegts,mpeg,flv,ogg,asf,3gp,ivf"
COMMON_RATES = (8, 10, 12, 15, 24, 25, 30, 50, 60, *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60)))
# Of the temporary folders in which clips are encoded; the process id follows
TEMPORARY_PREFIX = "hellomeme-"
DEFAULT_RATE = Fraction(25)  # frames per second, for a single frame without a duration


@dataclass(frozen=True)
class ClipInfo:
    """Rate and length of a clip.

    rate: frames per second, exact; for a variable rate, the common rate nearest to its average.
    seconds: from the start of the file to the end of the last frame.
    constant: whether the rate is constant.
    """

    path: Path
    rate: Fraction
    seconds: Fraction
    constant: bool

    @property
    def frames(self) -> int:
        """Number of frames at `rate`; a damaged file may deliver fewer."""
        return max(round(self.seconds * self.rate), 1)


@dataclass(frozen=True)
class Sound:
    """The sound of a clip: `seconds` of it, from `start` (s)."""

    path: Path
    start: Fraction
    seconds: Fraction


def probe(path: str | Path, name: str = "driver") -> ClipInfo:
    """Rate and length of a clip, from the time stamps of all its frames; none is decoded.

    name: what error messages call the clip. Raises HelloMemeError for a file that is not a readable clip.
    """
    path = Path(path)
    if path.is_dir():
        raise HelloMemeError(f"The {name} clip {path} is a folder: choose a clip in it.")
    if not path.is_file():
        raise HelloMemeError(f"The {name} clip {path} does not exist: check the path.")
    if not os.access(path, os.R_OK):
        raise HelloMemeError(f"The {name} clip {path} may not be read: change its permissions.")
    lines = subprocess.run(
        [*ffmpeg_command(), *input_arguments(path), "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ).stdout.splitlines()
    tick = next((Fraction(line.split(":")[1].strip()) for line in lines if line.startswith("#tb 0")), None)
    # stream, dts, pts, duration, ...
    packets = [line.split(",") for line in lines if not line.startswith("#")]
    stamps = sorted(
        (int(pts if _is_integer(pts) else dts), int(length)) for _, dts, pts, length, *_ in packets
    )
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
    """Yields the frames of a clip from `start` (s) on, (H, W, 3) uint8 RGB, upright, with square pixels.

    rate: frames per second to read. Frames are repeated or dropped, so that a variable rate becomes constant
    and stays in time with the sound. count: the most frames to read, None for all. name: what error messages
    call the clip. Raises HelloMemeError if no frame can be read, or if a side is shorter than 32 px.
    """
    shrink = f"min(1,{MAX_SIDE}/max(iw*sar,ih))"
    filters = (
        f"fps={rate.numerator}/{rate.denominator}:start_time=0,"
        f"scale='max(2,round(iw*sar*{shrink}))':'max(2,round(ih*{shrink}))':flags=bicubic,setsar=1"
    )
    seek = ["-ss", f"{float(start):.6f}"] if start else []
    limit = [] if count is None else ["-frames:v", str(count)]
    command = [
        *ffmpeg_command(), *seek, *input_arguments(Path(path)), "-map", "0:V:0", "-vf", filters, *limit,
        "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-",
    ]  # fmt: skip  # ffmpeg's options stay beside their values
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=1 << 20
    )
    frames = 0
    try:
        while (frame := _read_ppm(process.stdout)) is not None:
            if min(frame.shape[:2]) < MIN_SIDE:
                raise HelloMemeError(
                    f"The {name} clip is only {frame.shape[1]} x {frame.shape[0]} pixels: choose one "
                    f"of at least {MIN_SIDE} x {MIN_SIDE}."
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
    """Writes frames as an MP4 file (H.264, yuv420p, faststart), with the sound of another clip if it has any.

    A context manager. The clip is encoded in the system's folder for temporary files and moved to `path` when
    the block ends without an error; otherwise nothing is written to `path`. What a crash leaves in the folder
    for temporary files is removed when the next clip begins. Raises HelloMemeError where encoding fails.
    """

    def __init__(
        self, path: str | Path, rate: Fraction, sound: Sound | None = None, metadata: Sequence[str] = ()
    ):
        """rate: frames per second. metadata: ffmpeg arguments, from `metadata.Stamp.clip_arguments`."""
        self.path, self.rate, self.sound, self.metadata = Path(path), rate, sound, metadata
        self._process = self._log_reader = self._folder = None
        self._log: deque[bytes] = deque(maxlen=20)  # ffmpeg's last lines
        self.frames = 0

    def __enter__(self) -> ClipWriter:
        try:
            remove_stale(Path(tempfile.gettempdir()), TEMPORARY_PREFIX)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-"))
        except OSError as error:
            raise self._failure(error.strerror or str(error)) from error
        return self

    def write(self, frame: np.ndarray) -> None:
        """frame: (H, W, 3) uint8 RGB, all of the same size. An odd side is padded by one black line."""
        if self._process is None:
            self._start(*frame.shape[:2])
        try:
            self._process.stdin.write(np.ascontiguousarray(frame))
        except OSError as error:
            raise self._failure(self._failure_reason()) from error
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None or self._process is None:
                return
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            if self._process.wait() != 0:
                raise self._failure(self._failure_reason())
            with atomic_write(self.path, "clip") as draft:  # atomic also from another disk
                shutil.move(self._draft, draft)
        finally:
            if self._process is not None:
                self._process.kill()
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
                self._process.wait()
                self._log_reader.join()
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
            sound = ["-ss", f"{start:.6f}", "-t", f"{seconds:.6f}", *input_arguments(self.sound.path)]
            # late or damaged parts of the sound become silence and do not shift what follows
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
            *ffmpeg_command(), "-y",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-",
            *sound, "-map", "0:v:0", *mapped, "-c:v", "libx264", "-preset", "medium", "-crf", "17",
            "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
            *colours, "-movflags", "+faststart", *self.metadata, str(self._draft),
        ]  # fmt: skip  # ffmpeg's options stay beside their values
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe)
        # kept in memory: the disk may be full
        self._log_reader = threading.Thread(target=self._log.extend, args=[self._process.stderr], daemon=True)
        self._log_reader.start()

    def _failure_reason(self) -> str:
        """ffmpeg's last line, unless an earlier one says that the disk is full."""
        self._process.wait()
        self._log_reader.join()
        lines = [re.sub(r"^(\[[^]]*\] )+", "", line.decode(errors="replace").strip()) for line in self._log]
        full = os.strerror(errno.ENOSPC)
        return full if any(full in line for line in lines) else (lines or ["ffmpeg gave no reason"])[-1]

    def _failure(self, why: str) -> HelloMemeError:
        return HelloMemeError(f"The clip {self.path} could not be encoded: {why.rstrip('.')}.")


def ffmpeg_command() -> list[str]:
    """The path of ffmpeg and its general options."""
    import imageio_ffmpeg

    return [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin"]


def input_arguments(path: Path) -> list[str]:
    """Options for an input file that keep ffmpeg from opening anything else, whatever its name or content."""
    return ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i", f"file:{path.absolute()}"]


def _is_integer(text: str) -> bool:
    return text.strip().lstrip("-").isdigit()


def _rate(times: list[int], length: int, tick: Fraction) -> tuple[Fraction, bool]:
    """(frames per second, whether the rate is constant) from sorted time stamps and the last frame's length.

    times, length: in ticks of `tick` seconds.
    """
    steps, span = len(times) - 1, times[-1] - times[0]
    if not steps or not span:
        alone = 1 / (length * tick) if length > 0 else DEFAULT_RATE
        return (alone if 1 <= alone <= 240 else DEFAULT_RATE), True
    step = Fraction(span, steps)
    average = 1 / (step * tick)
    slack = max(1.5, 0.02 * step)  # ticks: some containers round to milliseconds
    if any(abs(time - times[0] - i * step) > slack for i, time in enumerate(times)):
        return Fraction(min(COMMON_RATES, key=lambda rate: abs(rate - average))), False
    whole = max(round(average), 1)
    rates = [Fraction(number * 1000, below) for number in (whole, whole + 1) for below in (1000, 1001)]
    nearest = min(rates, key=lambda rate: abs(rate - average))
    if abs(nearest / average - 1) <= Fraction(3, 2) / span:
        return nearest, True
    return average.limit_denominator(1001), True


def _read_ppm(stream: BinaryIO) -> np.ndarray | None:
    """The next frame (H, W, 3) uint8 of a stream of PPM files, or None at its end."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()  # the largest value, 255
    pixels = stream.read(3 * width * height)
    if len(pixels) < 3 * width * height:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

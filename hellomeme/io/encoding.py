"""Frames and the sound of another clip as an MP4 file, encoded with PyAV; in a process of its own, see
`worker`."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av

from .containers import Clip
from .filters import finished, picture_filters, sound_filters

SIZE = struct.Struct("=II")  # width and height, in front of the pixels of a frame
PICTURE = {"preset": "medium", "crf": "17"}
BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
# What AAC can hold; late or damaged parts of the sound become silence and do not shift what follows
SOUND = (
    ("aresample", "async=1:first_pts=0"),
    (
        "aformat",
        "sample_fmts=fltp:sample_rates=96000|88200|64000|48000|44100|32000|24000|22050|16000|12000|11025|8000:"
        "channel_layouts=mono|stereo|3.0|4.0|5.0|5.1|7.1",
    ),
)
PIXELS = (
    ("pad", "ceil(iw/2)*2:ceil(ih/2)*2"),
    ("scale", "out_color_matrix=bt709:out_range=tv"),
    ("format", "yuv420p"),
)
FRAME = 1024  # samples of AAC
LEAD = Fraction(1)  # s by which the sound is written before the picture
BIT_RATE = 160_000


class Writer:
    """An MP4 file (H.264, yuv420p, faststart) that is being written."""

    def __init__(self, path: str, rate: Fraction, sound: Iterator[av.AudioFrame], tags: dict[str, str]):
        """sound: frames that AAC can hold, with times. tags: the metadata of the file."""
        self._file = av.open(path, "w", format="mp4", container_options={"movflags": "+faststart"})
        self._file.metadata.update(tags)
        self._rate, self._frames, self._graph = rate, 0, None
        self._picture = self._file.add_stream("libx264", rate=rate, options=PICTURE)
        self._sound, self._next = sound, next(sound, None)
        if self._next is not None:
            self._track = self._file.add_stream("aac", rate=self._next.sample_rate, layout=self._next.layout)
            self._track.bit_rate = BIT_RATE

    def write(self, width: int, height: int, pixels: bytes) -> None:
        """A frame of RGB. An odd side is padded by one black line."""
        if self._graph is None:
            self._graph = picture_filters(width, height, "rgb24", PIXELS)
            encoder = self._picture.codec_context
            for name, value in BT709.items():
                setattr(encoder, name, value)
            encoder.width, encoder.height = width + width % 2, height + height % 2
            encoder.time_base, encoder.thread_type = 1 / self._rate, "AUTO"
        frame = av.VideoFrame(width, height, "rgb24")
        row, plane = 3 * width, frame.planes[0]
        padding = bytes(plane.line_size - row)
        plane.update(
            b"".join(pixels[k * row : (k + 1) * row] + padding for k in range(height)) if padding else pixels
        )
        self._graph.vpush(frame)
        (frame,) = finished(self._graph)
        frame.pts, frame.time_base = self._frames, 1 / self._rate
        self._file.mux(self._picture.encode(frame))
        self._frames += 1
        self._write_sound(self._frames / self._rate + LEAD)

    def close(self) -> None:
        """Completes the file."""
        self._file.mux(self._picture.encode())
        self._write_sound(None)
        self._file.close()

    def _write_sound(self, end: Fraction | None) -> None:
        """Up to a time in s; None: to its end."""
        while self._next is not None and (end is None or self._next.pts * self._next.time_base < end):
            self._file.mux(self._track.encode(self._next))
            self._next = next(self._sound, None)
            if self._next is None:
                self._file.mux(self._track.encode())


def heard(path: str, start: Fraction, seconds: Fraction) -> Iterator[av.AudioFrame]:
    """The sound of a clip from `start` (s) on, in frames for AAC; nothing if it has none that can be read."""
    graph = first = last = resampler = None
    for time, frame in _decoded_sound(path, start):
        if time >= seconds:
            break
        tick = Fraction(1, frame.sample_rate)
        frame.pts, frame.time_base = round(time / tick), tick
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if graph is None:
            end = f"end={float(seconds):.6f}"
            graph, first, last = sound_filters(frame, [("atrim", end), *SOUND]), form, form
            graph.set_audio_frame_size(FRAME)
        if form != last and form != first:  # it changes in mid-stream
            resampler = av.AudioResampler(*first)
        last = form
        for part in [frame] if form == first else resampler.resample(frame):
            graph.push(part)
        yield from finished(graph)
    if graph is not None:
        graph.push(None)
        yield from finished(graph)


def _decoded_sound(path: str, start: Fraction) -> Iterator[tuple[Fraction, av.AudioFrame]]:
    """Yields (s since `start`, frame)."""
    clip, time = Clip(path), None
    stream = clip.audio
    for packet in clip.packets():
        ticks = packet.dts if packet.pts is None else packet.pts
        if packet.stream_index != (stream and stream.index) or clip.seconds(ticks, stream) < start - LEAD:
            continue
        try:
            frames = packet.decode() if packet.size else []
        except av.FFmpegError:  # of a damaged part
            continue
        for frame in frames:
            if frame.pts is not None:
                time = clip.seconds(frame.pts, stream) - start
            elif time is None:
                time = clip.seconds(ticks, stream) - start
            yield time, frame
            time += Fraction(frame.samples, frame.sample_rate)


def main() -> None:
    """Reads frames from standard input: width and height as 32 bits each, then RGB.

    Arguments: the file to write, JSON of the metadata, the rate, and for sound a path, start and seconds.
    Prints why it failed to standard error.
    """
    path, tags, rate, *sound = sys.argv[1:]
    try:
        track = heard(sound[0], *map(Fraction, sound[1:])) if sound else iter(())
        writer = Writer(path, Fraction(rate), track, json.loads(tags))
        source: BinaryIO = sys.stdin.buffer
        while len(head := source.read(SIZE.size)) == SIZE.size:
            width, height = SIZE.unpack(head)
            writer.write(width, height, source.read(3 * width * height))
        writer.close()
    except (OSError, ValueError) as error:  # PyAV's errors are some of these
        sys.exit(getattr(error, "strerror", None) or str(error))

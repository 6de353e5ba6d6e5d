"""The frames of a clip, decoded with PyAV; in a process of its own, see `worker`."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import NamedTuple

import av
from av.sidedata.sidedata import Type

from .containers import MAX_PIXELS, Clip
from .filters import finished, picture_filters

MAX_SIDE = 1920  # px: larger clips are reduced to this while they are read; the networks see at most 512
COMMON_RATES = (8, 10, 12, 15, 24, 25, 30, 50, 60, *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60)))
DEFAULT_RATE = Fraction(25)  # frames per second, for a single frame without a duration
LONGEST_FRAME = 100  # frames at the common rate: what lasts longer is an error of the file
WIDE, HDR = (9, 12), (16, 18)  # primaries and transfer functions that are not those of sRGB, see `colour`
DEINTERLACE = [("bwdif", "mode=send_frame:deint=interlaced")]
UPRIGHT = 1, 0, 0, 1
TURNS = {  # signs of the display matrix, (x from y, y from x) -> direction of the filter that turns so
    (1, 1): "cclock_flip",
    (-1, 1): "clock",
    (1, -1): "cclock",
    (-1, -1): "clock_flip",
}


class Shown(NamedTuple):
    """A frame that is shown at `time` for `length` (s), whose pixels are `aspect` times as wide as high.

    matrix: the signs of how it is to be turned: x from x, y from x, x from y, y from y; 0 for none.
    """

    time: Fraction
    length: Fraction
    aspect: Fraction
    matrix: tuple[int, int, int, int]
    frame: av.VideoFrame


def describe(clip: Clip) -> dict:
    """{"rate": [numerator, denominator], "seconds": [same], "constant": bool} of a clip, for `ClipInfo`.

    No frame is decoded. Raises ValueError without a picture.
    """
    packets = clip.packets() if clip.video is not None else ()
    stamps, keys = [], []
    for packet in packets:
        if packet.stream_index == clip.video.index:
            keys.append(packet.is_keyframe)
            stamps.append((packet.pts if clip.has_pts else None, packet.dts, packet.duration or 0))
    if any(keys):  # what comes before the first cannot be decoded
        stamps = stamps[keys.index(True) :]
    if any(pts is None for pts, _, _ in stamps):
        # In the order of decoding they are late by the delay of the decoder: the first begins with the stream
        first = min(dts for _, dts, _ in stamps)
        shift = 0 if clip.video.start_time is None else clip.video.start_time - first
        stamps = sorted((dts + shift, length) for _, dts, length in stamps)
    else:
        stamps = sorted((pts, length) for pts, _, length in stamps)
    if not stamps:
        raise ValueError("no picture")
    tick = clip.video.time_base
    rate, steady = frame_rate([time for time, _ in stamps], stamps[-1][1], tick)
    last = stamps[-1][1] * tick
    last = last if 0 < last * rate < LONGEST_FRAME else 1 / rate
    seconds = max(clip.seconds(stamps[-1][0], clip.video) + last, 1 / rate)
    return {"rate": rate.as_integer_ratio(), "seconds": seconds.as_integer_ratio(), "constant": steady}


def frame_rate(times: list[int], length: int, tick: Fraction) -> tuple[Fraction, bool]:
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


def decoded(path: str, start: Fraction) -> Iterator[Shown]:
    """Yields the frames from the last key frame before `start` (s) on.

    The file is always read from its beginning on, since many have no index to go by, or a wrong one; what
    comes before that key frame is not decoded.
    """
    clip = Clip(path)
    stream = clip.video
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "AUTO"
    step = 1 / (stream.average_rate or DEFAULT_RATE)
    time, last, matrix = None, step, UPRIGHT
    packets = (packet for packet in clip.packets() if packet.stream_index == stream.index)
    skipped = _packets_before_key_frame(path, start) if start > 0 else 0
    for packet in chain(islice(packets, skipped, None), [None]):
        for frame in _frames(stream.codec_context, packet):
            length = frame.duration * stream.time_base if frame.duration else step
            length = length if length < LONGEST_FRAME * step else step
            found = None
            if clip.has_pts and frame.pts is not None:
                found = clip.seconds(frame.pts, stream)
            elif frame.dts is not None and (time is None or not clip.has_pts):
                late = 0 if clip.has_pts else stream.codec_context.reorder_depth  # frames, by decoding
                found = clip.seconds(frame.dts, stream) - late * step
            if time is None:
                time = found or Fraction(0)
            else:  # without a time, or with a wrong one, it comes after the last
                time = found if found is not None and found > time else time + last
            last = length
            aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
            # H.264 and H.265 say it at the first frame for which it is true
            matrix = _display_matrix(frame) or (UPRIGHT if frame.key_frame else matrix)
            yield Shown(time, length, aspect or Fraction(1), matrix, frame)


def _frames(decoder: av.CodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
    """The frames that a packet completes; None: that are left."""
    if packet is not None and not packet.size:
        return []
    try:
        return decoder.decode(packet)
    except av.FFmpegError:  # of a damaged part
        return []


def _packets_before_key_frame(path: str, start: Fraction) -> int:
    """The number of the picture's packets before the last key frame that is shown by `start` (s)."""
    clip, found = Clip(path), 0
    packets = (packet for packet in clip.packets() if packet.stream_index == clip.video.index)
    for number, packet in enumerate(packets):
        ticks = packet.dts if packet.pts is None or not clip.has_pts else packet.pts
        if packet.is_keyframe and clip.seconds(ticks, clip.video) <= start:
            found = number
        if clip.seconds(packet.dts, clip.video) > start:
            break
    return found


def progressive(frames: Iterable[Shown]) -> Iterator[Shown]:
    """The same without the lines of two moments that interlaced frames have."""
    graph, form, waiting = None, None, deque()

    def passed() -> Iterator[Shown]:
        return (waiting.popleft()._replace(frame=frame) for frame in finished(graph))

    for number, shown in enumerate(frames):
        frame = shown.frame
        found = frame.width, frame.height, frame.format.name
        if graph is not None and form != found:
            graph.vpush(None)
            yield from passed()
            waiting.clear()
            graph = None
        if graph is None and not frame.interlaced_frame:
            yield shown
            continue
        if graph is None:
            graph, form = picture_filters(*found, DEINTERLACE), found
        waiting.append(shown)
        frame.pts, frame.time_base = number, Fraction(1, 1000)  # only their order counts
        graph.vpush(frame)
        yield from passed()
    if graph is not None:
        graph.vpush(None)
        yield from passed()


def at_rate(frames: Iterable[Shown], rate: Fraction, start: Fraction) -> Iterator[Shown]:
    """Yields a frame for each moment start, start + 1 / rate, ...: the last that is shown by then, or the
    first.

    A time is rounded to the nearest moment.
    """
    done, held, end = 0, None, 0
    for shown in frames:
        held = shown if held is None else held
        place = math.floor((shown.time - start) * rate + Fraction(1, 2))
        for _ in range(done, place):
            yield held
        done, held = max(done, place), shown
        left = shown.time + shown.length - start
        end = max(math.floor(left * rate + Fraction(1, 2)), int(left > 0))
    for _ in range(done, end):
        yield held


class Converter:
    """Frames as bytes: upright, with square pixels, at most MAX_SIDE, in sRGB."""

    def __init__(self) -> None:
        self._form = self._graph = self._last = self._converted = None

    def __call__(self, shown: Shown) -> tuple[int, int, bytes]:
        """(width, height, RGB) of a frame. Frames may differ in shape."""
        if shown is not self._last:
            self._last, self._converted = shown, self._convert(shown)
        return self._converted

    def _convert(self, shown: Shown) -> tuple[int, int, bytes]:
        frame = shown.frame
        kind = frame.width, frame.height, frame.format.name
        form = kind, shown.aspect, shown.matrix, frame.colorspace, frame.color_range
        if form != self._form:
            self._form = form
            self._graph = picture_filters(*kind, [*_upright(shown.matrix), *_scaled(shown)])
        self._graph.vpush(frame)
        (picture,) = finished(self._graph)
        width, height, plane = picture.width, picture.height, memoryview(picture.planes[0])
        row = picture.planes[0].line_size
        pixels = b"".join(plane[y * row : y * row + 3 * width] for y in range(height))
        colours = int(frame.color_primaries), int(frame.color_trc)
        if colours[0] in WIDE or colours[1] in HDR:
            from PIL import Image

            from .colour import table

            pixels = Image.frombytes("RGB", (width, height), pixels).filter(table(*colours)).tobytes()
        return width, height, pixels


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """How a frame is to be turned, as in `Shown`, if it says so."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None or data.buffer_size < 36:
        return None
    values = struct.unpack("=9i", bytes(data)[:36])
    picked = values[0], values[1], values[3], values[4]
    largest = max(map(abs, picked))
    return tuple((value > largest / 2) - (value < -largest / 2) for value in picked)


def _upright(matrix: tuple[int, int, int, int]) -> list[tuple[str, str]]:
    """The filters that turn a frame as its display matrix says."""
    x_from_x, y_from_x, x_from_y, y_from_y = matrix
    if _lies(matrix):
        return [("transpose", TURNS[x_from_y, y_from_x])]
    return [("hflip", "")] * (x_from_x < 0) + [("vflip", "")] * (y_from_y < 0)


def _lies(matrix: tuple[int, int, int, int]) -> bool:
    """Whether width and height are exchanged."""
    return bool(matrix[1] and matrix[2] and not matrix[0])


def _scaled(shown: Shown) -> list[tuple[str, str]]:
    """The filters that make pixels square, and RGB of them."""
    size = shown.frame.width * shown.aspect, Fraction(shown.frame.height)
    shrink = min(1, MAX_SIDE / max(size))
    width, height = (max(2, math.floor(side * shrink + Fraction(1, 2))) for side in size)
    if _lies(shown.matrix):
        width, height = height, width
    return [("scale", f"{width}:{height}:flags=bicubic"), ("format", "rgb24")]


def main() -> None:
    """Arguments: "describe" and a path, for JSON; "comment" and a path, for that text; or "frames", a path,
    rate, start and the most frames (0: all), for width and height as 32 bits each and RGB of every frame."""
    task, path, *rest = sys.argv[1:]
    output = sys.stdout.buffer
    if task == "describe":
        output.write(json.dumps(describe(Clip(path))).encode())
    elif task == "comment":
        output.write(Clip(path).container.metadata.get("comment", "").encode())
    else:
        rate, start, count = map(Fraction, rest)
        frames = at_rate(progressive(decoded(path, start)), rate, start)
        convert = Converter()
        for shown in islice(frames, int(count) or None):
            width, height, pixels = convert(shown)
            output.write(struct.pack("=II", width, height) + pixels)

"""Clip files opened with PyAV: which of their streams count, and packets on one clock that never jumps.

Runs in a process of its own, see `worker`: what damages a decoder must not end the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import Flags, InputContainer
from av.stream import Discard, Disposition, Stream

# Formats that may be detected: no playlists, since they could make PyAV open other files or addresses.
CONTAINERS = "mov,matroska,webm,gif,avi,mpegts,mpeg,flv,ogg,asf,3gp,ivf"
WITHOUT_CLOCK = ("mpegts", "mpeg")  # formats whose clock may start anew in the middle
WITHOUT_PTS = ("avi",)  # has the order of decoding only; what PyAV gives for presentation is guessed
JUMP = 10  # s: between packets of such a format, more is no pause but another clock
MAX_PIXELS = 1 << 26  # of a frame


class Clip:
    """An open clip. video, audio: its streams that count, or None: the first that is marked as default, else
    the first. start: the time in the file (s) at which the first of them begins; if they differ by less than
    a frame, the picture."""

    def __init__(self, path: str):
        """Raises av.FFmpegError for a file that cannot be opened."""
        self.path = path
        allowed = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        self.container: InputContainer = av.open(
            f"file:{path}", container_options=allowed, metadata_errors="replace"
        )
        self.container.flags &= ~Flags.gen_pts.value  # guesses that are wrong for H.264
        self.video = _chosen(self.container.streams.video)
        self.audio = _chosen(self.container.streams.audio)
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
        for stream in self.container.streams:
            stream.discard = Discard.default if stream in streams else Discard.all
        self.start = self._start(streams)
        self.has_pts = self.container.format.name not in WITHOUT_PTS

    def _start(self, streams: list[Stream]) -> Fraction:
        starts = [stream.start_time * stream.time_base for stream in streams if stream.start_time is not None]
        first = min(starts, default=Fraction(self.container.start_time or 0, av.time_base))
        if self.video is not None and self.video.start_time is not None and self.video.average_rate:
            picture = self.video.start_time * self.video.time_base
            if picture - first < 1 / self.video.average_rate:  # an encoder's delay, which no frame need fill
                return picture
        return first

    def packets(self) -> Iterator[av.Packet]:
        """The packets of both streams from the beginning on, as far as they can be read, each with a dts.

        Where a format has no clock of the whole file, times are changed so that they go on. A packet without
        content means that the frame before it is shown longer.
        """
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
        clock = _Clock(self.container.format.name in WITHOUT_CLOCK)
        try:
            for packet in self.container.demux(streams):
                if packet.size or packet.dts is not None:  # none at the end
                    clock.correct(packet)
                    yield packet
        except av.FFmpegError:  # damaged or cut off: what came before is what there is
            return

    def seconds(self, ticks: int, stream: Stream) -> Fraction:
        """A time of a packet or frame in s since `start`."""
        return ticks * stream.time_base - self.start


class _Clock:
    """Gives packets the time of decoding that they lack, and makes times go on where they jump."""

    def __init__(self, may_jump: bool) -> None:
        self.may_jump = may_jump
        self.offset = Fraction(0)
        self.last: dict[int, Fraction] = {}  # stream -> time of its last packet
        self.expected: dict[int | None, Fraction] = {}  # and of the next; None: of any stream

    def correct(self, packet: av.Packet) -> None:
        """Changes the times of a packet of a file that is read from its beginning on."""
        place, tick = packet.stream_index, packet.time_base
        expected = self.expected.get(place, self.expected.get(None))
        ticks = packet.dts if packet.dts is not None or place in self.last else packet.pts
        if ticks is None:
            time = expected if expected is not None else (packet.stream.start_time or 0) * tick
        else:
            time = ticks * tick + self.offset
            expected = time if expected is None else expected
            back = place in self.last and time + Fraction(1, 10) < self.last[place]
            if self.may_jump and (back or abs(time - expected) > JUMP):
                self.offset += expected - time
                time = expected
        self.last[place] = time
        self.expected[place] = self.expected[None] = time + (packet.duration or 0) * tick
        packet.dts = round(time / tick)
        packet.pts = None if packet.pts is None else packet.pts + round(self.offset / tick)


def _chosen(streams: tuple[Stream, ...]) -> Stream | None:
    """The stream that a player would play."""
    streams = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter([*marked, *streams]), None)

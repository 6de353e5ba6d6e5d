"""Chains of PyAV's filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
from av.filter import Graph

Filters = Sequence[tuple[str, str]]  # (name, arguments)


def picture_filters(width: int, height: int, format: str, filters: Filters) -> Graph:
    """A chain for frames of this size and format."""
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=format, time_base=Fraction(1, 1000))
    return _chained(graph, source, filters, "buffersink")


def sound_filters(frame: av.AudioFrame, filters: Filters) -> Graph:
    """A chain for frames like this one."""
    graph = Graph()
    form = {"sample_rate": frame.sample_rate, "format": frame.format.name, "layout": frame.layout.name}
    return _chained(
        graph, graph.add_abuffer(**form, time_base=Fraction(1, frame.sample_rate)), filters, "abuffersink"
    )


def finished(graph: Graph) -> Iterator[av.frame.Frame]:
    """The frames that have passed through a chain."""
    while True:
        try:
            yield graph.pull()
        except (
            av.BlockingIOError,
            av.EOFError,
        ):  # it needs another one first, or was told that there is none
            return


def _chained(graph: Graph, source: av.filter.context.FilterContext, filters: Filters, sink: str) -> Graph:
    nodes = [graph.add(name, arguments or None) for name, arguments in filters]
    graph.link_nodes(source, *nodes, graph.add(sink)).configure()
    return graph

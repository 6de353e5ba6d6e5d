"""The Gallery tab: every character with every expression, as one grid."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.styles import Style
from hellomeme.settings import Settings

from . import drawing, state
from .components import (
    FACES,
    MODEL,
    PRIVATE,
    examples,
    run_and_stop,
    run_begins,
    run_ends,
    show_stopped,
    summary_line,
    with_metadata,
)
from .events import DRAWING, event, inputs_of
from .i18n import translate
from .image_tab import ImageTab
from .opening import caption, kept_file, shipped_grid
from .outdated import set_together
from .portrait_input import PortraitInput
from .shared_settings import SharedSettings
from .styles import NAMES as STYLE, restored

if TYPE_CHECKING:
    from hellomeme.reenactor import Portrait

CACHE_SIZE = 512  # cells; each is a small picture of the page's own examples, never of a visitor's
_cells: OrderedDict = OrderedDict()  # (release, reference, driver, settings, style) -> picture


@event(
    "model",
    "characters",
    "faces",
    "expression",
    "head",
    "guidance",
    "steps",
    "seed",
    *DRAWING,
    optional=DRAWING,
)
def make_gallery(
    model: str, characters: list[str], faces: list[str], settings: Settings, style: Style, session: str | None
) -> Iterator:
    """Draws each of the characters with each of the faces, by the names of the example pictures.

    Returns the pictures with their names, character by character, and a line about how far it is.
    """
    references, drivers = _example_paths("references", characters), _example_paths("drivers", faces)
    drawing.image_duration(model, settings, len(drivers), style)
    page, shown, total, finished = state.STATE, [], len(references) * len(drivers), False
    # Found once, and only if a row is drawn
    guides = functools.cache(lambda: [page.portrait(model, str(path), "driver", None) for path in drivers])
    with page.run(session) as flag:
        for reference in references:
            row = _row(model, reference, drivers, guides, settings, style, flag)
            if row is None:
                break
            shown += row
            yield gr.update(value=shown, columns=len(drivers)), f"{len(shown)} / {total}"
        else:
            finished = True
    if not finished:
        show_stopped()
    while len(_cells) > CACHE_SIZE:
        _cells.popitem(last=False)


def _row(
    model: str,
    reference: Path,
    drivers: list[Path],
    guides: Callable[[], list[Portrait]],
    settings: Settings,
    style: Style,
    flag: str,
) -> list | None:
    """The (picture, caption) of a reference with each driver; None if the run was stopped. guides: returns
    the portraits of the drivers."""
    keys = [(model, str(reference), str(driver), settings, style) for driver in drivers]
    if not all(key in _cells for key in keys):
        portrait = state.STATE.portrait(model, str(reference), "reference", None)
        state.STATE.download(model, style, settings.few_steps)
        results = drawing.draw_row(model, portrait, guides(), settings, flag, style)
        if results is None:
            return None
        _cells.update(
            (key, with_metadata(result.picture, result.stamp))
            for key, result in zip(keys, results, strict=True)
        )
    captions = (caption(str(reference), str(driver)) for driver in drivers)
    return [(_cells[key], text) for key, text in zip(keys, captions, strict=True)]


def _example_paths(folder: str, names: list[str]) -> list[Path]:
    """The example pictures of these names, each once. HelloMemeError for no name or an unknown one."""
    paths = {Path(path).stem: Path(path) for path in examples(folder)}
    if not names:
        raise HelloMemeError("The grid is empty: choose at least one character and one face.")
    if unknown := [name for name in names if name not in paths]:
        raise HelloMemeError(
            f"There is no example called {str(unknown[0])[:40]}: choose from {', '.join(paths)}."
        )
    return [paths[name] for name in dict.fromkeys(names)]


def build(shared: SharedSettings, portrait: PortraitInput, image: ImageTab, tabs: gr.Tabs) -> None:
    """The tab's components and events. A click on a cell opens it in the Image tab."""
    names = {folder: [Path(path).stem for path in examples(folder)] for folder in ("references", "drivers")}
    gr.Markdown(
        translate(
            "Every character with every face. Click a picture to open it in the Image tab with its settings."
        )
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=240):
            characters, faces = (
                gr.CheckboxGroup(names[folder], value=names[folder], label=translate(label), elem_id=elem_id)
                for folder, label, elem_id in (
                    ("references", "Characters", "characters"),
                    ("drivers", "Faces", "gallery-faces"),
                )
            )
            run = run_and_stop("Draw the grid", "gallery-")
            line = summary_line("gallery-about")
        with gr.Column(scale=3, min_width=300):
            grid = gr.Gallery(
                shipped_grid(examples("references"), examples("drivers")),
                label=translate("Characters by faces"),
                columns=max(len(names["drivers"]), 1),
                object_fit="contain",
                format="png",
                interactive=False,
                allow_preview=False,
                elem_id="grid",
                buttons=["fullscreen"],
                height="auto",
            )
    _example_clips()

    inputs = image.settings | shared.components | {"characters": characters, "faces": faces}
    options = {"api_name": "gallery", "js": run_begins("gallery"), **MODEL}
    run_ends("gallery", run.click(make_gallery, inputs_of(make_gallery, inputs), [grid, line], **options))
    _open_cells(grid, shared, portrait, image, tabs)


def _example_clips() -> None:
    if clips := examples("films", "mp4"):
        gr.Markdown(translate("Clips, each with four characters that follow it."))
        with gr.Row():
            for clip in clips:
                gr.Video(
                    clip,
                    label=Path(clip).stem,
                    interactive=False,
                    loop=True,
                    buttons=[],
                    min_width=280,
                    elem_classes="film",
                )


def _open_cells(
    grid: gr.Gallery, shared: SharedSettings, portrait: PortraitInput, image: ImageTab, tabs: gr.Tabs
) -> None:
    settings = image.settings | {name: shared.components[name] for name in ("model", *STYLE)}

    def open_cell(cells, at: gr.SelectData, request: gr.Request):
        """The cell's two pictures, its result, and the model and settings that drew it, for the Image tab."""
        path, text = cells[at.index]
        reference, driver = text.split(" · ")
        reference = str(_example_paths("references", [reference])[0])
        kept = kept_file(path, reference)
        values = {}
        if (stamp := kept.stamp) is not None:
            values = {"model": kept.release} | vars(stamp.settings) | restored(stamp.style)[0]
        return [
            gr.Tabs(selected="image"),
            "image",  # a tab that an event opens does not fire `select`
            reference,
            str(_example_paths("drivers", [driver])[0]),
            path,
            text,
            state.STATE.kept.keep(request.session_hash, "image", kept),
            *[None] * len(image.details),
            *(values.get(name, gr.skip()) for name in settings),
        ]

    shown = image.result
    results = [shown.picture, shown.line, shown.drawn, *image.details]
    outputs = [tabs, portrait.open_tab, portrait.picture, image.driver, *results, *settings.values()]
    opened = grid.select(open_cell, grid, outputs, **PRIVATE, **FACES)
    set_together(shown, image.drawn_from, opened)
    opened.success(None, js="() => helloMeme.showResult()", **PRIVATE)

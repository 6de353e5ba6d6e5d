"""The Gallery tab: every character with every expression, as one grid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.io import metadata
from hellomeme.settings import Settings

from . import drawing, studio
from .blocks import stop
from .common import Common
from .i18n import say
from .image_tab import ImageTab
from .parts import QUEUE, QUIET, examples, stamped, stop_button

KEPT = 512  # drawn cells; each is a small picture of the page's own examples, never of a visitor's
# Once the other tab is there, which on a phone is longer than the screen.
SHOW_RESULT = (
    "() => { setTimeout(() => document.querySelector('#result').scrollIntoView({block: 'center'}), 300) }"
)
_drawn: OrderedDict = OrderedDict()  # (release, reference, driver, settings) -> picture


def make_gallery(
    model, characters, faces, expression, head, guidance, steps, seed, request: gr.Request = None
) -> Iterator:
    """Draws each of the characters with each of the faces, by the names of the example pictures.

    Returns the pictures with their names, character by character, and a line about how far it is.
    """
    with studio.told_to_the_visitor():
        references, drivers = _chosen("references", characters), _chosen("drivers", faces)
        settings = Settings(expression=expression, head=head, guidance=guidance, steps=steps, seed=seed)
        drawing.needed(model, settings, len(drivers))
        cells, total = [], len(references) * len(drivers)
        own = studio.STUDIO
        guides, finished = None, False
        with own.stoppable(request and request.session_hash) as flag:
            for reference in references:
                keys = [(model, str(reference), str(driver), settings) for driver in drivers]
                if not all(key in _drawn for key in keys):
                    guides = guides or [
                        own.portrait(model, str(driver), "driver", None) for driver in drivers
                    ]
                    portrait = own.portrait(model, str(reference), "reference", None)
                    results = drawing.row(model, portrait, guides, settings, flag)
                    if results is None:
                        break
                    for key, result in zip(keys, results, strict=True):
                        _drawn[key] = stamped(result.picture, result.stamp)
                cells += [
                    (_drawn[key], f"{reference.stem} · {driver.stem}")
                    for key, driver in zip(keys, drivers, strict=True)
                ]
                yield gr.update(value=cells, columns=len(drivers)), f"{len(cells)} / {total}"
            else:
                finished = True
        if not finished:
            gr.Info("Stopped.", duration=3)
        while len(_drawn) > KEPT:
            _drawn.popitem(last=False)


def _chosen(folder: str, names: list[str]) -> list[Path]:
    """The example pictures of these names, each once; HelloMemeError for none, or for one that is no
    example."""
    paths = {Path(path).stem: Path(path) for path in examples(folder)}
    if not names:
        raise HelloMemeError("The grid is empty: choose at least one character and one face.")
    if unknown := [name for name in names if name not in paths]:
        raise HelloMemeError(
            f"There is no example called {str(unknown[0])[:40]}: choose from {', '.join(paths)}."
        )
    return [paths[name] for name in dict.fromkeys(names)]


def build(common: Common, image: ImageTab, tabs: gr.Tabs) -> None:
    """The tab's components and events; a cell that is clicked opens in the Image tab."""
    names = {folder: [Path(path).stem for path in examples(folder)] for folder in ("references", "drivers")}
    gr.Markdown(
        say("Every character with every face. Click a picture to open it in the Image tab with its settings.")
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=240):
            characters = gr.CheckboxGroup(
                names["references"], value=names["references"], label=say("Characters"), elem_id="characters"
            )
            faces = gr.CheckboxGroup(
                names["drivers"], value=names["drivers"], label=say("Faces"), elem_id="gallery-faces"
            )
            with gr.Row(equal_height=True):
                run = gr.Button(
                    say("Draw the grid"),
                    variant="primary",
                    size="lg",
                    scale=3,
                    min_width=120,
                    elem_id="gallery-run",
                )
                halt = stop_button("gallery-stop")
            about = gr.Markdown(elem_id="gallery-about", elem_classes="about", show_label=False)
        with gr.Column(scale=3, min_width=300):
            grid = gr.Gallery(
                label=say("Characters by faces"),
                columns=max(len(names["drivers"]), 1),
                object_fit="contain",
                format="png",
                interactive=False,
                allow_preview=False,
                elem_id="grid",
                buttons=["fullscreen"],
                height="auto",
            )
    if films := examples("films", "mp4"):
        gr.Markdown(say("Clips, each with four characters that follow it."))
        with gr.Row():
            for film in films:
                gr.Video(
                    film,
                    label=Path(film).stem,
                    interactive=False,
                    loop=True,
                    buttons=[],
                    min_width=280,
                    elem_classes="film",
                )

    settings = [image.controls[name] for name in ("expression", "head")] + [
        common.guidance,
        common.steps,
        common.seed,
    ]
    run.click(
        make_gallery, [common.model, characters, faces, *settings], [grid, about], api_name="gallery", **QUEUE
    )
    halt.click(stop, api_visibility="private", **QUIET)

    def open_cell(cells, at: gr.SelectData):
        """The cell's two pictures, its result and its settings, for the Image tab."""
        path, caption = cells[at.index]
        reference, _, driver = caption.partition(" · ")
        stamp = metadata.read(path)
        values = vars(stamp.settings) if stamp else {}
        filled = [values.get(name, gr.skip()) for name in image.controls]
        return [
            gr.Tabs(selected="image"),
            str(_chosen("references", [reference])[0]),
            str(_chosen("drivers", [driver])[0]),
            path,
            f"{reference} · {driver}",
            *[None] * len(image.beside),
            *filled,
        ]

    grid.select(
        open_cell,
        grid,
        [
            tabs,
            image.reference,
            image.driver,
            image.result,
            image.about,
            *image.beside,
            *image.controls.values(),
        ],
        api_visibility="private",
        show_progress="hidden",
        concurrency_id="faces",
    ).success(None, js=SHOW_RESULT, api_visibility="private")

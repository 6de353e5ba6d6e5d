"""The page as a whole: the header, the portrait, the tabs beside it and the settings below them."""

from __future__ import annotations

import gradio as gr

from hellomeme.releases.load import find

from . import (
    expression_tab,
    gallery_tab,
    image_tab,
    live_tab,
    portrait_input,
    restore,
    shared_settings,
    state,
    video_tab,
)
from .components import FACES, IMMEDIATE, PRIVATE
from .errors import visitor_error
from .gradio_assets import lighten
from .gradio_patches import Blocks
from .i18n import translate
from .stop import stop_on_leave
from .theme import header, script

TABS = ("image", "video", "expression", "live", "gallery")
DEMO_NOTE = (
    "The demo model draws toon heads of 192 px, on any computer. For photographs choose v1 or a later "
    "release in the settings below."
)
FILES_KEPT = 3600  # s
QUEUE_SIZE = 20


def refuse_clip():
    """Says that a picture is needed."""
    raise visitor_error("This is a clip, and a still is needed here: save one of its frames as a picture.")


def build() -> gr.Blocks:
    """The page, not yet launched."""
    with Blocks(title="HelloMeme", delete_cache=(FILES_KEPT, FILES_KEPT)) as page:
        page.load(None, js=script(), **PRIVATE)  # first: other events call what it defines
        gr.HTML(header(), elem_id="header", padding=False)
        with gr.Row(equal_height=False, elem_id="main"):
            with gr.Column(scale=2, min_width=250, elem_id="portrait", elem_classes="chooser"):
                portrait = portrait_input.build()
            with gr.Column(scale=6, min_width=320), gr.Tabs(elem_id="tabs") as tabs:
                tab = {
                    name: gr.Tab(translate(name.capitalize()), id=name, elem_id=f"{name}-tab")
                    for name in TABS
                }
        bundled = find(state.STATE.release).base.is_bundled
        note = gr.Markdown(translate(DEMO_NOTE), visible=bundled, elem_id="demo-note")
        shared, file = shared_settings.build()
        shared.model.change(
            lambda model: gr.update(visible=find(model).base.is_bundled),
            shared.model,
            note,
            **PRIVATE,
            **IMMEDIATE,
        )
        with tab["image"]:
            image = image_tab.build(shared, portrait, tab["image"], tabs)
        with tab["video"]:
            clip_settings, part = video_tab.build(shared, portrait, tab["video"])
        with tab["expression"]:
            expression = expression_tab.build(shared, portrait, tabs, tab["expression"])
        with tab["live"]:
            live_tab.build(shared, portrait)
        with tab["gallery"]:
            gallery_tab.build(shared, portrait, image, tabs)
        for name in TABS:
            tab[name].select(lambda name=name: name, None, portrait.open_tab, **PRIVATE, **IMMEDIATE)
        settings = clip_settings | image.settings | expression.settings | shared.components
        restored = restore.connect(file, settings)
        part.show_after(restored)
        expression.follow(restored)
        expression.on_load(page)
        # page.js presses the first, and writes the words of the others on the camera
        refuse = gr.Button(visible="hidden", elem_id="refuse-clip")
        refuse.click(refuse_clip, **PRIVATE, **FACES)
        gr.Button(translate("Open the camera"), visible="hidden", elem_id="word-camera")
        gr.Button(translate("Go live"), visible="hidden", elem_id="word-start")
        page.unload(stop_on_leave)
    lighten(page)
    return page.queue(max_size=QUEUE_SIZE)

"""The page as a whole: the header, the tabs and the settings below them."""

from __future__ import annotations

import gradio as gr

from . import expression_tab, gallery_tab, image_tab, live_tab, restore, shared_settings, video_tab
from .components import PRIVATE
from .gradio_assets import lighten
from .gradio_patches import Blocks
from .i18n import translate
from .stop import stop_on_leave
from .theme import header, script

TABS = ("image", "video", "expression", "live", "gallery")
FILES_KEPT = 3600  # s
QUEUE_SIZE = 20


def build() -> gr.Blocks:
    """The page, not yet launched."""
    with Blocks(title="HelloMeme", delete_cache=(FILES_KEPT, FILES_KEPT)) as page:
        gr.HTML(header(), elem_id="header", padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            tab = {name: gr.Tab(translate(name.capitalize()), id=name) for name in TABS}
        shared, file = shared_settings.build()
        with tab["image"]:
            image = image_tab.build(shared)
        with tab["video"]:
            clip_settings = video_tab.build(shared)
        with tab["expression"]:
            sliders = expression_tab.build(shared)
        with tab["live"]:
            live_tab.build(shared)
        with tab["gallery"]:
            gallery_tab.build(shared, image, tabs)
        restore.connect(file, clip_settings | image.settings | sliders | shared.components)
        page.unload(stop_on_leave)
        page.load(None, js=script(), **PRIVATE)
    lighten(page)
    return page.queue(max_size=QUEUE_SIZE)

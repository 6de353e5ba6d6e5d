"""The page: `python app.py`. On Hugging Face Spaces this very file is called.

Host and port: --host and --port, or Gradio's GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  (on Hugging Face Spaces before anything that touches CUDA)

import argparse
import ctypes
import importlib.metadata
import os
import sys
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the page asks nothing of the network

import gradio as gr

from hellomeme.errors import HelloMemeError
from page import blocks, common, drawing, expression_tab, gallery_tab, image_tab, parts, studio, video_tab
from page.i18n import say
from page.spaces_gpu import ON_SPACES
from page.theme import LOOKS, header

LARGEST_UPLOAD = "500mb"  # some minutes of a telephone's clip
# What Gradio leaves out. Its example pictures have no words for a screen reader: the names of their files.
# Its sliders tell of being released by a pointer, but not by a key. And a picture is not pasted by the keys
# for it: it goes where the pointer or the focus is, or else to the first place for a picture of the tab.
EASE = """() => {
    const unnamed = "button.gallery-item:not([aria-label]) :is(img, video)";
    const stem = shown => decodeURIComponent(shown.src).replace(/^.*\\/|\\.\\w+$/g, "");
    const name = () => document.querySelectorAll(unnamed).forEach(shown =>
        shown.closest("button").setAttribute("aria-label", stem(shown)));
    new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
    name();
    document.addEventListener("keyup", key => key.target.matches("#sliders input[type=range]")
        && key.target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true})));
    document.addEventListener("paste", pasted => {
        if (pasted.target.matches("input, textarea")) return;
        if (pasted.clipboardData.types.includes("text/plain")) return;
        const picture = [...pasted.clipboardData.files].find(file => file.type.startsWith("image/"));
        const places = [...document.querySelectorAll(".takes-picture")].filter(place => place.offsetParent);
        const place = places.find(place => place.matches(":hover"))
            ?? places.find(place => place.contains(document.activeElement)) ?? places[0];
        const input = place?.querySelector("input[type=file]");
        if (!picture || !input) return;
        const files = new DataTransfer();
        files.items.add(picture);
        input.files = files.files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
    });
}"""


def build() -> gr.Blocks:
    """The page, not yet launched."""
    with blocks.Blocks(title="HelloMeme", delete_cache=(blocks.HOUR, blocks.HOUR)) as page:
        gr.HTML(header(), elem_id="header", padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            places = {
                name: gr.Tab(say(name.capitalize()), id=name)
                for name in ("image", "video", "expression", "gallery")
            }
        shared, file = common.build()
        with places["image"]:
            image = image_tab.build(shared)
        with places["video"]:
            video = video_tab.build(shared)
        with places["expression"]:
            sliders = expression_tab.build(shared)
        with places["gallery"]:
            gallery_tab.build(shared, image, tabs)
        common.restores(file, video.controls | image.controls | sliders, shared.model)
        page.unload(studio.stop)  # a visitor who leaves frees the slot
        page.load(None, js=EASE, api_visibility="private")
    return page.queue(max_size=20)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="app.py", description="Opens the HelloMeme page.")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, or 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: GRADIO_SERVER_PORT, or 7860)")
    parser.add_argument("--root-path", help="path under which a proxy serves the page, such as /hellomeme")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's tunnel")
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help="ask visitors for this name and password")
    parser.add_argument(
        "--open", action="store_true", help="open the page in the browser, where there is a screen"
    )
    parser.add_argument(
        "--mcp", action="store_true", help="offer the page's events as tools to language models too"
    )
    parser.add_argument(
        "--release", default="demo", help="model to start with: a release, or a folder in its layout"
    )
    parser.add_argument("--base", help="base model for it: hub id, diffusers folder or .safetensors file")
    parser.add_argument("--lora", action="append", default=[], help="LoRA file for it; may be repeated")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    options = parser.parse_args(arguments)
    if options.mcp and not speaks_mcp():
        parser.exit(2, "app.py: --mcp needs a package more, of version 1: pip install 'mcp>=1.21,<2'.\n")
    if options.auth and ":" not in options.auth:
        parser.exit(2, "app.py: --auth takes a name and a password with a colon between them.\n")
    share_heaps()
    studio.STUDIO = studio.Studio(options.release, options.base, options.lora, options.device)
    try:
        page = build()
    except HelloMemeError as error:
        parser.exit(2, f"app.py: {error}\n")
    if ON_SPACES:
        studio.STUDIO.warm_up()  # onto the device now, from where each run is handed the weights
    page.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        inbrowser=options.open and has_screen(),
        auth=tuple(options.auth.split(":", 1)) if options.auth else None,
        root_path=options.root_path,
        mcp_server=options.mcp,
        show_error=options.mcp,  # without, a tool would not tell why it failed
        run_history=False,
        footer_links=["api", "settings"],
        max_file_size=LARGEST_UPLOAD,
        prevent_thread_lock=True,
        **LOOKS,
    )
    if not ON_SPACES:
        # Only now: a slow machine would be too busy with it to answer Gradio's own look whether it is there
        threading.Thread(target=warm_up, daemon=True).start()
    page.block_thread()


def share_heaps() -> None:
    """Two heaps for all threads. Left alone, glibc gives each of a server's many threads one of its own, and
    what is free in one is of no use to the others: under load the memory grew minute by minute."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX of malloc.h


def speaks_mcp() -> bool:
    """Whether there is a version of `mcp` that this Gradio can use: its second one is another library."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("mcp").startswith("1.")
    return False


def warm_up() -> None:
    """Gets everything going while the first visitor still looks at the page."""
    references, drivers = parts.examples("references"), parts.examples("drivers")
    studio.STUDIO.warm_up()
    if references and drivers:
        drawing.try_out(references[0], drivers[0])


def has_screen() -> bool:
    """Whether a browser window can open: never on a server, where a text browser would take over the
    terminal."""
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


if __name__ == "__main__":
    main()

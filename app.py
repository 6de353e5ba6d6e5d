"""Opens the page: `python app.py`. Hugging Face Spaces run this file, too.

Host and port: --host and --port, or Gradio's GRADIO_SERVER_NAME and GRADIO_SERVER_PORT. HELLOMEME_OPTIONS
holds options where there is no command line, as on Spaces.
"""

from __future__ import annotations

import contextlib
import gc
import os

if __name__ == "__main__":
    gc.disable()  # until `warm_up` is through: what is imported stays, and would be looked through many times

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `hellomeme.threads.wait_without_spinning`

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  (on Spaces, before anything that touches CUDA)

import argparse
import ctypes
import importlib.metadata
import shlex
import sys
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no requests to other hosts

from hellomeme.cli import common
from hellomeme.errors import HelloMemeError
from hellomeme.releases.hub import offline
from page import components, first_runs, state
from page.layout import build
from page.spaces_gpu import ON_SPACES
from page.theme import LOOKS

MAX_UPLOAD = "500mb"  # a few minutes of a phone's clip


def main(arguments: list[str] | None = None) -> None:
    """Opens the page, and returns when it is closed. arguments: of the command line, without the program."""
    options = parse(arguments)
    limit_heaps()
    with offline() if options.offline else contextlib.nullcontext():
        serve(options)


def serve(options: argparse.Namespace) -> None:
    """Opens the page that the options ask for, and returns when it is closed."""
    try:
        state.STATE = state.State(
            options.release,
            common.style_from(options),
            options.device,
            options.expression_type,
            is_local(options),
            options.face_models,
            options.upscaler,
            common.dtype_from(options),
            options.memory,
            options.compile,
        )
        if options.face_models != "mediapipe":
            state.STATE.analyzer  # noqa: B018  (now, so that what is missing is told at the start)
        page = build()
    except HelloMemeError as error:
        print(f"app.py: {error}", file=sys.stderr)
        sys.exit(2)
    if ON_SPACES:
        state.STATE.warm_up()  # onto the GPU at import, as Spaces require: each process then gets its copy
    page.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        inbrowser=options.open and has_screen(),
        auth=tuple(options.auth.split(":", 1)) if options.auth else None,
        root_path=options.root_path,
        mcp_server=options.mcp,
        show_error=options.mcp,  # so that a tool's error has its sentence
        run_history=False,
        max_file_size=MAX_UPLOAD,
        prevent_thread_lock=True,
        **LOOKS,
    )
    # After launch: on a slow machine it would delay the request by which Gradio checks that it is up.
    state.STATE.warm.clear()
    threading.Thread(target=warm_up, daemon=True).start()
    page.block_thread()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with those of HELLOMEME_OPTIONS before the command line's. Exits with a sentence and
    status 2 for wrong ones."""
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
    common.add_style_options(parser)
    common.add_expression_type(parser)
    common.add_face_models(parser)
    common.add_offline(parser)
    common.add_upscaler(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    common.add_dtype(parser)
    common.add_memory(parser)
    common.add_compile(parser)
    if arguments is None:
        arguments = shlex.split(os.environ.get("HELLOMEME_OPTIONS", "")) + sys.argv[1:]
    options = parser.parse_args(arguments)
    if options.mcp and not supports_mcp():
        parser.exit(2, "app.py: --mcp needs a package more, of version 1: pip install 'mcp>=1.21,<2'.\n")
    if options.auth and ":" not in options.auth:
        parser.exit(2, "app.py: --auth takes a name and a password with a colon between them.\n")
    return options


def is_local(options: argparse.Namespace) -> bool:
    """Whether only this computer can open the page: no public link, no proxy, no other address."""
    host = options.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    reached = options.share or options.root_path
    reached = reached or any(map(os.environ.get, ("GRADIO_ROOT_PATH", "SPACE_ID"))) or ON_SPACES
    return host in ("127.0.0.1", "localhost", "::1") and not reached


def limit_heaps() -> None:
    """Limits glibc to two heaps. By default each thread of a server gets a heap of its own, whose free memory
    no other thread can use: under load the process then grows minute by minute."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX of malloc.h


def supports_mcp() -> bool:
    """Whether a version of `mcp` is installed that Gradio can use: its second one has another interface."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("mcp").startswith("1.")
    return False


def warm_up() -> None:
    """Loads the model and draws pictures and clips with it before the first visitor does."""
    references, drivers = components.examples("references"), components.examples("drivers")
    clips = components.examples("clips", "mp4", "webm")
    try:
        state.STATE.warm_up()
        if references and drivers:
            first_runs.draw_first_images(references[0], drivers[0])
            if clips:
                first_runs.draw_first_clips(references[0], clips[0])
        # Python looks through all objects only when a quarter more have come, and the libraries' own are a
        # million. Set aside, they do not count, and what visitors leave behind is found in time.
        gc.collect()
        gc.freeze()
        gc.collect()  # counts what is left
    finally:
        gc.enable()
        state.STATE.warm.set()


def has_screen() -> bool:
    """Whether a browser window can open. On a server a text browser would take over the terminal."""
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


if __name__ == "__main__":
    main()

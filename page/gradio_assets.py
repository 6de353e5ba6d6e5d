"""Makes the first load of the page smaller than Gradio's own. Written for the version of `gradio_patches`.

Gradio 6.31 sends the page itself uncompressed, and fetches the scripts and styles of all components at once,
also of those in tabs that are not open, each style as a file of its own. Here the page is compressed, what is
in a closed tab is fetched when the tab is opened, and the styles of all components come as one file.

Both are changes in one of Gradio's scripts, made while it is served. A version of Gradio without the replaced
lines of that script works as it is, with more requests.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

import gradio as gr
from fastapi.responses import Response
from gradio import brotli_middleware, routes

ASSETS = Path(routes.BUILD_PATH_LIB)
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}  # the names hold a hash of the content
COMPRESSED = ("/", "/config", "/info")  # ends of the paths that are compressed besides scripts and styles
# In the script `core`, what is replaced by what. It loads every component where it builds the tree of the
# page, and those still missing in the first of the passes over that tree, the last of which hides closed
# tabs. Here that pass comes last and loads all; also in the tree of a part that is rendered again.
LOAD, HIDE = "e=>je(e,this.#r.api_url)", "e=>Ne(e,this.components_to_register,this.#d)"
NAME = "e=>Pe(e,this.initial_tabs)"
REPLACED = {
    "s=a.shared_props.visible===!1?null:G(": "s=!0?null:G(",
    f"[{LOAD},": "[",
    f"{HIDE}]": f"{HIDE},{LOAD}]",
    f"this.traverse(r,{NAME})": f"this.traverse(r,[{LOAD},{NAME}])",
}

_file_response = routes.file_response
_is_compressible = brotli_middleware.BrotliMiddleware._is_compressible_file_type
_kinds: set[str] = set()  # of components that pages use


def lighten(page: gr.Blocks) -> None:
    """Serves the scripts and styles of a page, and of all pages of this process, as described above."""
    _kinds.update(block.get_block_name() for block in page.blocks.values())
    styles.cache_clear()
    routes.file_response = file_response
    brotli_middleware.BrotliMiddleware._is_compressible_file_type = is_compressible


def is_compressible(middleware: brotli_middleware.BrotliMiddleware, scope: dict) -> bool:
    """Whether an answer may be compressed. Not for streams of events, nor for pictures and clips."""
    return scope.get("path", "").endswith(COMPRESSED) or _is_compressible(middleware, scope)


def file_response(folder: str, path: str) -> Response:
    """As `gradio.route_utils.file_response`, which serves Gradio's own files."""
    if Path(folder) != ASSETS:
        return _file_response(folder, path)
    if path == styles()[0]:
        return Response(styles()[1], media_type="text/css", headers=FOREVER)
    if re.fullmatch(r"core-[\w-]+\.js", path) and (ASSETS / path).is_file():
        # Under Gradio's own name, so the browser must not keep it for other versions of this page.
        headers = {"Cache-Control": "no-cache"}
        return Response(lazy_script(ASSETS / path), media_type="text/javascript", headers=headers)
    response = _file_response(folder, path)
    response.headers.update(FOREVER)
    return response


def lazy_script(path: Path) -> str:
    """The script that loads components, so that it loads none of a closed tab, and all styles as one file."""
    script = path.read_text(encoding="utf-8")
    if all(script.count(old) == 1 for old in REPLACED):
        for old, new in REPLACED.items():
            script = script.replace(old, new)
    name, _, bundled = styles()
    for style in bundled:
        script = script.replace(f'"./{style}"', f'"./{name}"')
    return script


@functools.cache
def styles() -> tuple[str, str, list[str]]:
    """The styles of all kinds of components that the pages use: name of the file that holds them, its text,
    and the names of Gradio's files that it replaces."""
    names = []
    for path in ASSETS.glob("core-*.js"):
        script = path.read_text(encoding="utf-8")
        listed = re.search(r"m\.f=\[(.*?)\]", script)
        files = re.findall(r'"\./([^"]+)"', listed[1]) if listed else []
        # kind:{component:()=>v(()=>import(`./Index.js`),__vite__mapDeps([0,1,2]),import.meta.url),...}
        for kind, variants in re.findall(r"\b(\w+):\{((?:base|example|component):\(\)=>[^{}]*)\}", script):
            if kind in _kinds:
                numbers = re.findall(r"\d+", " ".join(re.findall(r"mapDeps\(\[([\d,]*)\]", variants)))
                names += [files[int(number)] for number in numbers]
    names = [name for name in dict.fromkeys(names) if name.endswith(".css") and not name.startswith("index-")]
    text = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)
    return f"page-{hashlib.sha256(text.encode()).hexdigest()[:12]}.css", text, names

"""The files that Gradio makes of pictures, whole for everyone who downloads them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gradio import processing_utils
from PIL import Image


def save_pil_to_cache(img: Image.Image, cache_dir: str, name: str = "image", format: str = "webp") -> str:
    """Path of the picture as a file in Gradio's cache, where pictures that are alike are one file.

    As `gradio.processing_utils.save_pil_to_cache`, which empties that file first, and then writes it again,
    under the hands of a visitor who downloads the like at that moment.
    """
    with tempfile.TemporaryDirectory(prefix="hellomeme-") as folder:
        picture = Path(folder, f"{name}.{format}")
        picture.write_bytes(processing_utils.encode_pil_to_bytes(img, format))
        return processing_utils.save_file_to_cache(picture, cache_dir)

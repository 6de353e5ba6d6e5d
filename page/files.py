"""Files that the page writes for visitors."""

from __future__ import annotations

import uuid
from pathlib import Path

from .gradio_patches import upload_folder


def new_file(name: str) -> Path:
    """A path in a new folder among those that Gradio serves, and deletes after a while."""
    folder = upload_folder() / f"hellomeme-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    return folder / name

"""The last results of the visitors, kept so that they can be pasted back without a new run."""

from __future__ import annotations

import os
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hellomeme.errors import HelloMemeError

if TYPE_CHECKING:
    from hellomeme.io.metadata import Stamp
    from hellomeme.portrait import Portrait

MOST_BYTES = 128 << 20  # of all results together: 2,700 of the demo model, 170 of Stable Diffusion
SMALL = 2048  # bytes of a result without its picture


@dataclass(frozen=True)
class Kept:
    """Where the reference of a result is: it is read again when it is needed whole.

    reference: path of a picture. face: number of the face in it, as in the settings.
    """

    release: str
    reference: str
    face: int | None = None
    expression_type: str | None = None

    size = SMALL  # bytes of what is kept in memory

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what is read again."""
        return (self.reference,)

    @property
    def source(self) -> tuple:
        """The arguments of `State.portrait` for the reference."""
        return self.release, self.reference, "reference", self.face, self.expression_type


@dataclass(frozen=True, kw_only=True)
class KeptPicture(Kept):
    """picture: the face. stamp: its settings, None if they are not known. name: of files of it, without a
    suffix."""

    picture: Image.Image
    stamp: Stamp | None
    name: str = "hellomeme"

    @property
    def size(self) -> int:
        return 3 * self.picture.width * self.picture.height + SMALL

    def before_and_after(self, reference: Portrait, feather: float) -> tuple[Image.Image, Image.Image]:
        """The whole reference, and a copy with the result pasted back. feather: 0..1, of the soft edge."""
        from hellomeme.face.paste import paste

        pasted = paste(reference.frame, reference.crop, np.asarray(self.picture), feather)
        return Image.fromarray(reference.frame), Image.fromarray(pasted)


@dataclass(frozen=True, kw_only=True)
class KeptClip(Kept):
    """clip: path of the face's clip, a file that Gradio serves."""

    clip: str

    @property
    def files(self) -> tuple[str, ...]:
        return self.reference, self.clip


class KeptResults:
    """The last result of each visitor in each tab, by keys that nobody can guess."""

    def __init__(self):
        self._lock = threading.Lock()
        self._results: OrderedDict[str, tuple[str | None, str, Kept]] = OrderedDict()

    def keep(self, session: str | None, tab: str, kept: Kept) -> str:
        """Keeps a result in place of the visitor's last one in the tab, and returns its key."""
        key = uuid.uuid4().hex
        with self._lock:
            self._remove(lambda owner, place: (owner, place) == (session, tab))
            self._results[key] = session, tab, kept
            size = sum(kept.size for *_, kept in self._results.values())
            while len(self._results) > 1 and size > MOST_BYTES:
                size -= self._results.popitem(last=False)[1][-1].size
        return key

    def get(self, key: str) -> Kept:
        """HelloMemeError for a result that is not kept any longer, or whose files are not."""
        with self._lock:
            *_, kept = self._results.get(key, [None])
            if kept is None or not all(map(os.path.exists, kept.files)):  # deleted after a while
                raise HelloMemeError("This result is no longer kept here: draw it again.")
            self._results.move_to_end(key)
            return kept

    def end(self, session: str | None) -> None:
        """Forgets the results of a visitor, who has left."""
        with self._lock:
            self._remove(lambda owner, place: owner == session)

    def _remove(self, chosen) -> None:
        for key in [key for key, (owner, place, _) in self._results.items() if chosen(owner, place)]:
            del self._results[key]

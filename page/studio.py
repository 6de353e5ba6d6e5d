"""The models that are loaded, the faces found last, and who pressed Stop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
import tempfile
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from gradio.context import LocalContext

from hellomeme.errors import HelloMemeError, NoMemoryError
from hellomeme.releases.load import add_motion, available, choose_device, choose_dtype, find

from .spaces_gpu import ON_SPACES

if TYPE_CHECKING:
    from hellomeme.face.detect import FaceAnalyzer
    from hellomeme.reenactor import Portrait, Reenactor, ReferencePortrait

FAULT = "Something broke on our side; the log of the server says what. Trying again may help."
REMEMBERED = 6  # faces, and references made ready: enough for the few visitors who take turns
log = logging.getLogger("hellomeme.page")


class Studio:
    """What the page was started with, and what it holds for its visitors.

    release, base, loras, device: as for `load` of `hellomeme.releases`; base and LoRA files belong to that
    release only.
    """

    def __init__(
        self,
        release: str = "demo",
        base: str | None = None,
        loras: tuple[str, ...] = (),
        device: str | None = None,
    ):
        self.release, self.base, self.loras, self.device = release, base, tuple(loras), device
        self.reenactors, self.stops, self.turn = {}, {}, threading.RLock()
        self.portraits, self.references = OrderedDict(), OrderedDict()
        # Events that have left the queue, but have not come as far as `stoppable`
        self.stopped_early: set[str] = set()
        # release -> s for one prediction of one frame, as last measured here
        self.pace: dict[str, float] = {}
        own = weakref.ref(self)

        def take_a_new_lock() -> None:
            # In a forked worker nobody would ever release one that was held at the time
            if (studio := own()) is not None:
                studio.turn = threading.RLock()

        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=take_a_new_lock)

    @functools.cached_property
    def models(self) -> dict[str, tuple[str, str | None]]:
        """Name -> (title, why it cannot run here or None), as found when the page was started."""
        models = {name: (title, reason) for name, title, reason in available()}
        if self.release not in models:
            models[self.release] = (f"{find(self.release).name}: your model folder", None)
        return models

    def reenactor(self, release: str, code: str | None = None) -> Reenactor:
        """The reenactor of a release, loaded when it is first asked for; `code` if not the release's first
        one."""
        code = code or find(release).code
        if (reenactor := self.reenactors.get((release, code))) is not None:
            # Without waiting for the run that may have its turn: faces are looked for beside it
            return reenactor
        with self.turn:
            if (release, code) not in self.reenactors:
                own = {"base": self.base, "loras": self.loras} if release == self.release else {}
                own |= {"device": self.device, "code": code, "progress": _downloading} | _without_a_gpu()
                reenactor = _reenactor_class().from_release(release, **own)
                reenactor.analyzer = self.analyzer
                if ON_SPACES:
                    if reenactor.emotion_encoder is not None:
                        reenactor.emotion_encoder.float().cpu()  # faces are looked at without the GPU
                    with contextlib.suppress(HelloMemeError):
                        # Now, not in time that is lent; what fails will be told to the visitor who asks for a
                        # clip
                        add_motion(reenactor.pipeline, reenactor.release, _downloading)
                self.reenactors[release, code] = reenactor
            return self.reenactors[release, code]

    def drawing(self, release: str, code: str | None = None) -> Reenactor:
        """The reenactor, ready to draw: on Spaces that is in the process that has the GPU."""
        reenactor = self.reenactor(release, code)
        if ON_SPACES:
            device = choose_device(self.device)
            reenactor.pipeline.to(device, choose_dtype(device))
        return reenactor

    @functools.cached_property
    def analyzer(self) -> FaceAnalyzer:
        """One for all reenactors."""
        from hellomeme.face.detect import FaceAnalyzer

        return FaceAnalyzer()

    def warm_up(self) -> None:
        """Loads the first model ahead of the first visitor; what is wrong with it will be told to the
        visitor."""
        with contextlib.suppress(HelloMemeError):
            self.reenactor(self.release)

    def portrait(
        self, release: str, path: str, name: str, face: int | None, code: str | None = None
    ) -> Portrait:
        """The face of a picture file, the "reference" or the "driver". Needs no GPU."""
        key = (release, code, path, os.stat(path).st_mtime_ns if os.path.exists(path) else None, name, face)
        if (portrait := self.portraits.get(key)) is None:
            portrait = self.reenactor(release, code).portrait(path, name, face)
            if name != "reference":  # of which the whole picture is needed too, to paste the result into it
                portrait = dataclasses.replace(portrait, frame=portrait.frame[:0])
            _remember(self.portraits, key, portrait)
        return portrait  # by then it may have been forgotten again: faces are looked for beside a run, too

    def reference(self, release: str, portrait: Portrait, code: str | None = None) -> ReferencePortrait:
        """The portrait made ready to be driven. Needs the GPU, where there is one."""
        pictures = hashlib.sha256(portrait.picture.tobytes() + portrait.frame.tobytes())
        key = (release, code, pictures.hexdigest())
        if (reference := self.references.get(key)) is None:
            reference = self.reenactor(release, code).set_reference(portrait)
            _remember(self.references, key, reference)
        return reference

    def forget(self) -> None:
        """Leaves the next run as much memory as there is: keeps the model that the page was started with
        alone. Nothing while somebody draws, for whom it would have to wait."""
        if self.turn.acquire(blocking=False):
            try:
                self.references.clear()
                own = self.release, find(self.release).code
                self.reenactors = {key: value for key, value in self.reenactors.items() if key == own}
            finally:
                self.turn.release()

    def measured(self, release: str, predictions: int, guidance: float, seconds: float) -> None:
        """Keeps the pace of a run for estimates, with guidance taken as two predictions."""
        pace = seconds / (predictions * (2 if guidance > 1 else 1))
        self.pace[release] = pace if release not in self.pace else 0.5 * (pace + self.pace[release])

    @contextlib.contextmanager
    def stoppable(self, session: str | None) -> Iterator[str]:
        """Yields the path of a file that is not there until the visitor presses Stop. It is a file because on
        Spaces another process draws. What is given up in the middle leaves the block without an error."""
        flag = Path(tempfile.gettempdir(), f"hellomeme-stop-{uuid.uuid4().hex}")
        self.stops[session] = flag
        _flag.set(str(flag))
        try:
            if (event := LocalContext.event_id.get(None)) in self.stopped_early:
                self.stopped_early.discard(event)
                flag.touch()
            import_networks()
            from hellomeme.sampling.image import Stopped

            with contextlib.suppress(Stopped):
                yield str(flag)
        finally:
            flag.unlink(missing_ok=True)
            if self.stops.get(session) is flag:  # not that of a run started since
                del self.stops[session]

    def stop(self, session: str | None) -> bool:
        """Whether there was a run of theirs to be stopped."""
        flag = self.stops.get(session)
        if flag is not None:
            flag.touch()
        return flag is not None


STUDIO = Studio()
# That of the run in whose course something is done
_flag: ContextVar[str | None] = ContextVar("flag", default=None)

_importing = threading.Lock()


def import_networks() -> None:
    """Imports all that draws: to be called before anything of it is imported in answer to a visitor.

    Two visitors' threads must not do so at once. diffusers puts another module in its own place at the end of
    its import, and a thread that came in the middle is left with the first one, which is empty.
    """
    with _importing:
        import hellomeme.reenactor  # noqa: F401


@functools.cache
def _reenactor_class() -> type[Reenactor]:
    import_networks()
    from hellomeme.reenactor import Portrait, Reenactor

    class Studied(Reenactor):
        """Takes portraits, found before, wherever pictures are taken."""

        def portrait(self, image, name: str = "driver", face: int | None = None) -> Portrait:
            return image if isinstance(image, Portrait) else super().portrait(image, name, face)

    return Studied


def _without_a_gpu() -> dict:
    """Where a model is loaded on Spaces once visitors are there. At import the main thread sees a GPU, whose
    tensors turn real in each process that is lent one. Other threads see none: what they load waits in
    memory, in half precision."""
    if not ON_SPACES or threading.current_thread() is threading.main_thread():
        return {}
    import torch

    return {"device": "cpu", "dtype": torch.float16}


def _downloading(source: str, done: int, total: int) -> None:
    """Shows a download to the visitor who waits for it, and ends it once that one presses Stop: it will be
    gone on with."""
    gr.Progress()((done >> 20, total >> 20), desc=f"Downloading {source}", unit="MB")
    if (flag := _flag.get()) is not None:
        stopper(flag)()


def _remember(kept: OrderedDict, key, value) -> None:
    kept[key] = value
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)


@contextlib.contextmanager
def told_to_the_visitor():
    """Bad input becomes its sentence; a fault of ours becomes one general sentence, its traceback goes to the
    log."""
    try:
        yield
    except gr.Error:
        raise
    except HelloMemeError as error:
        if isinstance(error, NoMemoryError):
            STUDIO.forget()
        raise gr.Error(str(error), duration=30, print_exception=False) from error
    except Exception as error:
        log.exception("while drawing")
        raise gr.Error(FAULT, duration=30, print_exception=False) from error


def stopper(flag: str, then: Callable | None = None) -> Callable:
    """A progress callback that ends the run once the file `flag` is there, after calling `then` with its
    arguments."""
    from hellomeme.reenactor import Stopped

    def progress(*done) -> None:
        if then is not None:
            then(*done)
        if os.path.exists(flag):
            raise Stopped

    return progress


def stop(request: gr.Request):
    """Ends the visitor's own run at its next step."""
    STUDIO.stop(request.session_hash)

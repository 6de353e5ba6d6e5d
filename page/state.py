"""All that the page keeps between events: loaded models, portraits, runs and the measured speed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import gradio as gr

from hellomeme.errors import HelloMemeError, NoMemoryError
from hellomeme.releases.few_steps import distilled_loras, find_preset
from hellomeme.releases.load import add_motion, available, choose_device, choose_dtype, find
from hellomeme.releases.networks import locate
from hellomeme.releases.parts import fetch_style
from hellomeme.releases.styles import Style
from hellomeme.threads import set_threads, threads_for

from . import spaces_gpu
from .imports import import_networks
from .kept import KeptResults
from .live_session import LiveSessions
from .paces import ClipPaces
from .runs import Runs, stop_check_here

if TYPE_CHECKING:
    import torch

    from hellomeme.face.detect import FaceAnalyzer
    from hellomeme.reenactor import Portrait, Reenactor, ReferencePortrait
    from hellomeme.settings import ClipSettings, Settings

CACHE_SIZE = 6  # portraits, and prepared references: enough for the few visitors who take turns


class State:
    """The options that the page was started with, and what it has loaded and measured since.

    release, device, expression_type, dtype, memory, compiled: as for `hellomeme.releases.load.load`. style:
    what draws at first. Style and expression type are used for that release only. is_local: whether the page
    is served to this computer alone. face_models: as for `face_analyzer`. upscaler: see
    `hellomeme.upscale.Upscaler.load`.
    """

    def __init__(
        self,
        release: str = "demo",
        style: Style = Style(),
        device: str | None = None,
        expression_type: str | None = None,
        is_local: bool = False,
        face_models: str = "mediapipe",
        upscaler: str | None = None,
        dtype: torch.dtype | None = None,
        memory: str = "auto",
        compiled: bool = False,
    ):
        self.release, self.style, self.device, self.is_local = release, style, device, is_local
        self.face_models, self.upscaler, self.dtype = face_models, upscaler, dtype
        # On Spaces all networks wait in the memory of the computer, and go to a large GPU together
        self.memory = "all" if spaces_gpu.ON_SPACES else memory
        self.compiled = compiled and not spaces_gpu.ON_SPACES  # each loan would compile anew
        self.expression_type = expression_type
        self.reenactors: dict[tuple[str, str], Reenactor] = {}
        self.cpu_reenactors: dict[tuple[str, str], Reenactor] = {}  # on Spaces: draw on its own cores
        self.portraits: OrderedDict[tuple, Portrait] = OrderedDict()
        self.references: OrderedDict[tuple, ReferencePortrait] = OrderedDict()
        self.runs = Runs()
        self.live = LiveSessions()
        self.kept = KeptResults()
        self.pace: dict[str, float] = {}  # release -> s for one prediction of a picture, as measured
        self.measured_at: dict[str, float] = {}  # release -> when its pace was measured last, s
        self.clip_paces = ClipPaces()
        self.warm = threading.Event()  # clear while the page measures how fast it is, after its start
        self.warm.set()
        self.drawing_lock = threading.RLock()
        this = weakref.ref(self)

        def replace_lock() -> None:
            # A lock that another thread holds during a fork is never released in the child.
            if (state := this()) is not None:
                state.drawing_lock = threading.RLock()

        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=replace_lock)

    # Models

    @functools.cached_property
    def models(self) -> dict[str, tuple[str, str | None]]:
        """Release -> (title, why it cannot run here or None), as found at the first use."""
        models = {name: (title, reason) for name, title, reason in available()}
        if self.release not in models:
            models[self.release] = (f"{find(self.release).name}: your model folder", None)
        return models

    def reenactor(self, release: str, expression_type: str | None = None) -> Reenactor:
        """The reenactor of a release, loaded at the first use. expression_type: of its control nets; None
        for the release's default."""
        expression_type = expression_type or self.default_type(release)
        key = release, expression_type
        if (reenactor := self.reenactors.get(key)) is not None:
            return reenactor  # without the lock: faces are detected while another visitor's run draws
        with self.drawing_lock:
            if key not in self.reenactors:
                self.reenactors[key] = self._load(release, expression_type)
            return self.reenactors[key]

    def default_type(self, release: str) -> str:
        """The expression type of a release that the page was started with, or the release's own."""
        started = self.expression_type if release == self.release else None
        return started or find(release).expression_type

    def _load(self, release: str, expression_type: str) -> Reenactor:
        reenactor = self._from_release(release, expression_type, **_cpu_outside_main_thread())
        from hellomeme.upscale import Upscaler

        if self.upscaler is not None:
            place = "cpu" if spaces_gpu.ON_SPACES else reenactor.pipeline.running_device
            reenactor.upscaler = Upscaler.load(self.upscaler, place, _show_download)
        if spaces_gpu.ON_SPACES:
            reenactor.encoders.float().cpu()  # faces are analysed without the GPU
            # Now, and not in GPU time. A failure is raised again when a clip is drawn.
            with contextlib.suppress(HelloMemeError):
                add_motion(reenactor.pipeline, reenactor.release, _show_download)
        return reenactor

    def _from_release(self, release: str, expression_type: str, **place) -> Reenactor:
        """A new reenactor. place: device and dtype, if not the page's."""
        import_networks()
        from hellomeme.reenactor import Reenactor

        style = self.style if release == self.release else Style()
        options = {field.name: getattr(style, field.name) for field in dataclasses.fields(Style)}
        options |= {"device": self.device, "expression_type": expression_type, "progress": _show_download}
        options |= {"dtype": self.dtype, "memory": self.memory, "compiled": self.compiled}
        return Reenactor.from_release(release, **options | {"analyzer": self.analyzer} | place)

    def drawing_reenactor(
        self, release: str, expression_type: str | None = None, style: Style = Style()
    ) -> Reenactor:
        """The reenactor that draws in this process, in a style; to be called with the drawing lock. On Spaces
        it is a copy on the CPU, and in the process that is lent the GPU the one that waits for it."""
        if spaces_gpu.ON_SPACES and not spaces_gpu.has_gpu():
            reenactor = self._cpu_reenactor(release, expression_type)
        else:
            reenactor = self.reenactor(release, expression_type)
            if spaces_gpu.ON_SPACES:
                device = choose_device(self.device)
                reenactor.pipeline.to(device, self.dtype or choose_dtype(device))
                if reenactor.upscaler is not None:
                    reenactor.upscaler.to(device)
        set_threads(threads_for(reenactor.pipeline))
        reenactor.set_style(style, _show_download)
        return reenactor

    def _cpu_reenactor(self, release: str, expression_type: str | None) -> Reenactor:
        key = release, expression_type or self.default_type(release)
        if key not in self.cpu_reenactors:
            self.cpu_reenactors[key] = self._from_release(*key, device="cpu", dtype=None)
        return self.cpu_reenactors[key]

    def download(self, release: str, style: Style, few_steps: str) -> None:
        """Downloads what a style needs, before the drawing lock is taken, so that others draw meanwhile; on
        Spaces it would also cost GPU time."""
        row = find(release)
        preset = find_preset(few_steps, row)
        fetch_style(locate(row, row.base), style, distilled_loras(preset, style), _show_download)

    def add_motion(self, reenactor: Reenactor, clip: ClipSettings) -> None:
        """Gives a reenactor the motion networks of its release, if the clip is drawn with them."""
        if clip.motion:
            add_motion(reenactor.pipeline, reenactor.release, _show_download)

    @functools.cached_property
    def analyzer(self) -> FaceAnalyzer:
        """The face analyzer of all reenactors."""
        from hellomeme.face.onnx_models import face_analyzer

        return face_analyzer(self.face_models, _show_download)

    def is_warming_up(self, release: str) -> bool:
        """Whether the speed of a release is being measured."""
        return release == self.release and not self.warm.is_set()

    def warm_up(self) -> None:
        """Loads the model that the page opens with. A failure is raised again when it is used."""
        with contextlib.suppress(HelloMemeError):
            self.reenactor(self.release)

    # Portraits

    def portrait(
        self, release: str, path: str, name: str, face: int | None, expression_type: str | None = None
    ) -> Portrait:
        """The face in a picture file. name: "reference" or "driver". Needs no GPU."""
        modified = os.stat(path).st_mtime_ns if os.path.exists(path) else None
        key = release, expression_type, path, modified, name, face
        if (portrait := self.portraits.get(key)) is None:
            portrait = self.reenactor(release, expression_type).portrait(path, name, face)
            if name != "reference":  # only results in a reference are pasted back into the whole picture
                portrait = dataclasses.replace(portrait, frame=portrait.frame[:0])
            _store(self.portraits, key, portrait)
        return portrait

    def reference(
        self, release: str, portrait: Portrait, expression_type: str | None = None
    ) -> ReferencePortrait:
        """The portrait with its latents, ready to be driven by this process, see `drawing_reenactor`."""
        pictures = hashlib.sha256(portrait.picture.tobytes() + portrait.frame.tobytes())
        on_cpu = spaces_gpu.ON_SPACES and not spaces_gpu.has_gpu()
        key = release, expression_type, on_cpu, pictures.hexdigest()
        if (reference := self.references.get(key)) is None:
            load = self._cpu_reenactor if on_cpu else self.reenactor
            reference = load(release, expression_type).set_reference(portrait)
            _store(self.references, key, reference)
        return reference

    # Runs

    @contextlib.contextmanager
    def run(self, session: str | None) -> Iterator[str]:
        """A run of a visitor: yields its stop flag, see `Runs.start`; frees memory where it runs out."""
        with self.runs.start(session) as flag, self.free_memory_on_error():
            yield flag

    @contextlib.contextmanager
    def free_memory_on_error(self) -> Iterator[None]:
        """After a NoMemoryError drops the references and all models but the one the page was started with.
        Nothing is dropped while another run draws."""
        try:
            yield
        except NoMemoryError:
            if self.drawing_lock.acquire(blocking=False):
                try:
                    self.references.clear()
                    first = self.release, self.default_type(self.release)
                    self.reenactors = {key: value for key, value in self.reenactors.items() if key == first}
                finally:
                    self.drawing_lock.release()
            raise

    def record_pace(self, release: str, settings: Settings, seconds: float) -> None:
        """Keeps the speed of a picture with resolved settings, unless they skip work. With guidance each
        prediction counts twice."""
        if settings.skips_work:
            return
        pace = seconds / (settings.steps * (2 if settings.guidance > 1 else 1))
        self.pace[release] = pace if release not in self.pace else 0.5 * (pace + self.pace[release])
        self.measured_at[release] = time.monotonic()


STATE = State()


def _store(cache: OrderedDict, key: tuple, value) -> None:
    cache[key] = value
    while len(cache) > CACHE_SIZE:
        cache.popitem(last=False)


def _cpu_outside_main_thread() -> dict:
    """Options of `load` on Spaces. There the main thread sees a GPU at import, whose tensors become real in
    each process that is lent one. Other threads see none: their models wait in memory, in half precision."""
    if not spaces_gpu.ON_SPACES or threading.current_thread() is threading.main_thread():
        return {}
    import torch

    return {"device": "cpu", "dtype": torch.float16}


def _show_download(source: str, done: int, total: int) -> None:
    """Progress of a download, in bytes, for the visitor who waits for it. Raises `Stopped` if that one
    presses Stop; the next load resumes the download."""
    gr.Progress()((done >> 20, total >> 20), desc=f"Downloading {source}", unit="MB")
    stop_check_here()

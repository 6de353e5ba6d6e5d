"""A camera drives a reference: each frame is read and drawn by itself, as soon as it is there."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import numpy as np

from .errors import HelloMemeError
from .face.crop import Crop
from .face.detect import Face
from .face.motion import Motion
from .face.retarget import held_turns, relative
from .face.smooth import LiveSmoother
from .portrait import ReferencePortrait
from .reenactor import Reenactor
from .settings import Settings


class Live:
    """Follows one face in front of a camera.

    >>> live = Live(reenactor)
    >>> motion = live.read(frame, time.monotonic())
    >>> picture = live.draw(motion, reference, settings)

    `read` needs the face models only, so that the next frame can be read while one is drawn.
    """

    def __init__(self, reenactor: Reenactor, smoothing: float = 0.5):
        """smoothing: 0 (none) to 1, as for clips; it knows the past only."""
        self.reenactor = reenactor
        self.smoother = LiveSmoother(smoothing)
        self.neutral: Motion | None = None
        self._face: Face | None = None
        self._motion: Motion | None = None  # read last
        self._lock = threading.Lock()

    def read(self, frame: np.ndarray, seconds: float) -> Motion | None:
        """The motion of one frame (H, W, 3) uint8 RGB, smoothed; None if it shows no face.

        seconds: when it was taken, on any clock. The face of the last frame is followed; without one, the
        largest face is. Raises HelloMemeError for an array of another shape or type.
        """
        with self._lock:
            reenactor = self.reenactor
            self._face = face = reenactor.analyzer.follow(frame, self._face)
            if face is None:
                self.smoother.reset()
                return None
            crop = Crop.of([face], frame.shape, reenactor.release.crop_scale)
            motion = reenactor.encoders.read(frame, face, Motion.from_faces([face], crop))
            self._motion = self.smoother(motion, seconds)
            return self._motion

    def set_neutral(self) -> None:
        """From now on motion is relative: what changes since the frame that was read last is added to the
        reference's own face and pose. Raises HelloMemeError before a face was seen."""
        if self._motion is None:
            raise HelloMemeError("No face has been seen yet: look into the camera, in good light.")
        self.neutral = self._motion

    def retargeted(self, motion: Motion, reference: ReferencePortrait, settings: Settings) -> Motion:
        """A motion from `read` as the reference performs it."""
        if (neutral := self.neutral) is not None:
            motion = relative(_joined(neutral, motion), reference.motion, 0).at([1])
        motion = motion.onto(reference.motion, settings.expression, settings.head)
        return held_turns(motion, self.reenactor.release.turns)[0]

    def draw(
        self, motion: Motion, reference: ReferencePortrait, settings: Settings = Settings()
    ) -> np.ndarray:
        """(size, size, 3) uint8: the reference with a motion from `read`. settings: as for a picture; without
        upscaling.

        If the GPU memory runs out, it tries once more with less, then raises NoMemoryError.
        """
        reenactor = self.reenactor
        settings = settings.resolved(reenactor.release)
        return np.asarray(reenactor.draw(self.retargeted(motion, reference, settings), reference, settings))


def _joined(first: Motion, second: Motion) -> Motion:
    """The frames of one motion and then of another of the same kind."""
    arrays = {field.name: getattr(first, field.name) for field in fields(Motion) if field.name != "rate"}
    return replace(
        first,
        **{
            name: np.concatenate([value, getattr(second, name)])
            for name, value in arrays.items()
            if value is not None
        },
    )

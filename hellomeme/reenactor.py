"""The public interface: a `Reenactor` takes a reference once and draws it with any number of drivers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .drawing import Drawing, Progress
from .errors import HelloMemeError
from .expression import ExpressionEncoders
from .face.conditions import condition_pictures
from .face.crop import Crop
from .face.detect import FaceAnalyzer
from .face.drawing import FaceBasis, FaceShape
from .face.edit import Edit, Turn, edited
from .face.motion import Motion
from .face.retarget import held_turns
from .io.image import read_picture
from .memory import attempts
from .pipeline import HelloMemePipeline
from .portrait import Portrait, ReferencePortrait, Result
from .releases.load import face_basis, load
from .releases.styles import Style
from .releases.table import Release
from .sampling.image import Stopped
from .settings import ClipSettings, Settings
from .styling import Styling
from .upscale import Upscaler, upscaled
from .video import Report, make_clip

__all__ = ["Portrait", "ReferencePortrait", "Reenactor", "Result", "Stopped"]

PictureSource = str | Path | Image.Image | np.ndarray | Portrait


class Reenactor(Drawing):
    """Gives the face of a reference picture the expression and head pose of a driver.

    >>> reenactor = Reenactor.from_release("demo")
    >>> reenactor.set_reference("toon.png")
    >>> reenactor.image("me.jpg", Settings(expression=1.5)).picture.save("result.png")
    """

    def __init__(
        self,
        pipeline: HelloMemePipeline,
        release: Release | None = None,
        encoders: ExpressionEncoders | None = None,
        analyzer: FaceAnalyzer | None = None,
        basis: FaceBasis | None = None,
        style: Style = Style(),
    ):
        """release: its row; None for the row, encoders and basis that the pipeline was loaded with. encoders:
        for control nets that take more than ARKit coefficients. analyzer: a new one if None. basis: for
        releases that draw the face into the condition picture. style: the pipeline's."""
        if release is None:
            release, encoders = pipeline.known_release(), encoders or pipeline.encoders
            basis = basis or face_basis(release)
        self.pipeline = pipeline
        self.release = release
        self.styling = Styling(pipeline, release, style)
        self.basis = basis
        self.encoders = ExpressionEncoders() if encoders is None else encoders
        self.analyzer = analyzer or FaceAnalyzer()
        self.upscaler: Upscaler | None = None  # needed for `Settings.upscale`
        self.reference: ReferencePortrait | None = None

    @classmethod
    def from_release(
        cls,
        name: str | Release = "demo",
        base: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        loras: Sequence = (),
        analyzer: FaceAnalyzer | None = None,
        **more,
    ) -> Reenactor:
        """A reenactor with the networks of a release or a local folder; arguments as for `load`.

        analyzer: of faces; a new one with MediaPipe if None, see also `face.onnx_models.face_analyzer`.
        Raises HelloMemeError if they cannot be loaded, NoMemoryError without enough GPU memory.
        """
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                pipeline, encoders, release = load(name, base, device, dtype, loras, **more)
                return cls(pipeline, release, encoders, analyzer, face_basis(release), pipeline.style)

    @property
    def style(self) -> Style:
        """The base model, autoencoder and LoRA that draw."""
        return self.styling.style

    def set_style(self, style: Style, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Draw with other weights from now on. LoRA are exchanged in place; references stay valid, what
        depends on the weights is prepared anew.

        progress: called during downloads, see `hub.fetch`. Raises HelloMemeError for what cannot be loaded or
        does not fit, NoMemoryError without enough GPU memory; the weights are then as before, except that
        another base model may have lost its LoRA.
        """
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                self.styling.apply(style, self.styling.few_steps, progress)
                return

    def set_reference(self, image: PictureSource, face: int | None = None) -> ReferencePortrait:
        """Analyse the reference picture and encode it.

        image: a path, PIL picture, uint8 array (H, W, 3), or a `Portrait` from `portrait`. face: which one,
        by size from 0; the largest if None. The result is the reference of later calls; it can also be passed
        to them as `reference`.
        Raises NoFaceError without a face, HelloMemeError for a picture that cannot be read, or NoMemoryError.
        """
        portrait = self.portrait(image, "reference", face)
        if isinstance(portrait, ReferencePortrait):
            self.reference = portrait
            return portrait
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                made = {"latents": self.styling.encode(portrait.picture), "style": self.style}
                self.reference = ReferencePortrait(**vars(portrait), **made, shape=self._shape(portrait))
                return self.reference

    def image(
        self,
        driver: PictureSource | None,
        settings: Settings = Settings(),
        progress: Progress | None = None,
        reference: ReferencePortrait | None = None,
    ) -> Result:
        """Draw the reference with the driver's expression and head pose.

        driver: a path, PIL picture, uint8 array (H, W, 3), or a `Portrait` from `portrait`, which is not
        analysed again; None for the reference itself, whose own face is then drawn in the style.
        progress: called as `progress(step, steps)` after each step, from 1; it may raise `Stopped` to cancel.
        reference: from `set_reference`; the one set last if None.
        Raises NoFaceError without a face, HelloMemeError for a driver that cannot be read or without a
        reference. If the GPU memory runs out, it tries once more with less, then raises NoMemoryError.
        """
        reference = self.chosen(reference)
        settings = self.resolved(settings)
        portrait = reference if driver is None else self.portrait(driver, "driver", settings.driver_face)
        motion = portrait.motion.onto(
            reference.motion, settings.expression, settings.head, settings.translation
        )
        return self._result(reference, portrait.picture, motion, settings, progress)

    def expression(
        self,
        coefficients: Mapping[str, float] | np.ndarray | None = None,
        turn: Turn = Turn(),
        settings: Settings = Settings(),
        progress: Progress | None = None,
        reference: ReferencePortrait | None = None,
    ) -> Result:
        """Draw the reference with an edited face, without a driver.

        coefficients: 0..1 by ARKit name, where names left out keep the reference's values, or an array (51,).
        turn: of the head, from the reference's own pose. The strengths in `settings` apply as for a driver;
        the other arguments are those of `image`. See `face.edit` for groups, presets and initial values.
        Raises HelloMemeError for other names or values, or if the control nets take no ARKit coefficients.
        """
        reference = self.chosen(reference)
        settings = self.resolved(settings)
        if "drive_coeff" not in self.pipeline.expression_types:
            raise HelloMemeError(
                "These control nets take no ARKit coefficients: load the release with the expression type "
                "drive_coeff to edit a face."
            )
        motion = edited(reference.motion, coefficients, turn)
        edit = Edit.of(motion, turn)
        motion = motion.onto(reference.motion, settings.expression, settings.head, settings.translation)
        return self._result(reference, None, motion, settings, progress, edit)

    def video(
        self,
        driver: str | Path | Motion,
        output: str | Path,
        settings: Settings = Settings(),
        clip: ClipSettings = ClipSettings(),
        progress: Callable[[str, float, int], None] | None = None,
        reference: ReferencePortrait | None = None,
        labelled: bool = True,
        draw: Callable[..., Iterable[np.ndarray]] | None = None,
        style: Style | None = None,
    ) -> Report:
        """Write an MP4 file of the reference with the motion of a driver clip, and with its sound.

        driver: path of a clip or of a motion file (.npz), or a Motion. output: the new file; it is written
        atomically.
        progress: called as `progress(phase, done, total)` in frames, after every frame of the phase
        "analysing" and every step of "drawing", then in fractions; it may raise `Stopped` to cancel.
        reference: from `set_reference`; the one set last if None.
        labelled: whether the metadata says that the file is AI-generated; they hold the settings in any case.
        draw: replaces `frames`, with the same arguments, to draw in another process, for example; the
        reference may then be a `Portrait`.
        style: the one in which `draw` draws, for the metadata.
        Raises HelloMemeError for bad input, and NoFaceError if the driver does not show a face in its first
        second or in most frames.
        """
        reference = self.chosen(reference)
        settings = self.resolved(settings)
        progress = progress or (lambda *_: None)
        return make_clip(
            driver,
            output,
            settings,
            clip,
            release=self.release,
            analyzer=self.analyzer,
            encoders=self.encoders,
            reference=reference.motion,
            shape=self._shape(reference),
            draw=lambda motion: (draw or self.frames)(reference, motion, settings, clip, progress),
            progress=progress,
            labelled=labelled,
            style=style or self.style,
        )

    def chosen(self, reference: ReferencePortrait | None) -> ReferencePortrait:
        """The given reference, or the one set last; HelloMemeError without either."""
        if reference is None and self.reference is None:
            raise HelloMemeError("There is no reference picture yet: set one first.")
        return reference or self.reference

    def portrait(self, image: PictureSource, name: str = "driver", face: int | None = None) -> Portrait:
        """Read a picture, find the face, crop it and measure its motion.

        image: as for `image`; a `Portrait` is returned as it is, and must come from a reenactor with the same
        release and expression type. name: what error messages call the picture. face: which one, by size from
        0; the largest if None.
        Raises NoFaceError without a face, HelloMemeError for a picture that cannot be read.
        """
        if isinstance(image, Portrait):
            return image
        frame = read_picture(image, name)
        found = self.analyzer.face(frame, name, face)
        crop = Crop.of([found], frame.shape, self.release.crop_scale)
        motion = self.encoders.read(frame, found, Motion.from_faces([found], crop))
        return Portrait(Image.fromarray(crop.apply(frame, self.release.size)), found, motion, crop, frame)

    def _shape(self, portrait: Portrait) -> FaceShape | None:
        return None if self.basis is None else FaceShape.of(portrait.face, self.basis)

    def _result(
        self,
        reference: ReferencePortrait,
        driver: Image.Image | None,
        motion: Motion,
        settings: Settings,
        progress: Progress | None,
        edit: Edit | None = None,
    ) -> Result:
        """One picture of the reference, moved by a motion of one frame."""
        motion, held = held_turns(motion, self.release.turns)
        drawn = np.asarray(self.draw(motion, reference, settings, progress))
        picture = Image.fromarray(upscaled(drawn, settings, self.upscaler))
        pose = Image.fromarray(condition_pictures(motion, shape=reference.shape)[0])
        name, whole = self.release.name, (reference.frame, reference.crop)
        made = (settings, name, *whole, edit, held, self.style)
        return Result(picture, reference.picture, driver, pose, *made)

"""Reenactor: pictures and clips in, pictures and clips out. The reference is set once, then driven any number
of times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .errors import HelloMemeError
from .face.conditions import emotion_input, pose_picture, pose_tensor
from .face.crop import Crop
from .face.detect import Face, FaceAnalyzer
from .face.edit import Edit, Turn, edited
from .face.motion import Motion
from .face.paste import paste
from .io.image import read_picture
from .io.metadata import Stamp
from .memory import attempts
from .models.fan_encoder import FanEncoder
from .pipeline import HelloMemePipeline, Reference
from .releases.load import load
from .releases.table import Release
from .sampling.image import Stopped
from .settings import ClipSettings, Settings

__all__ = ["Portrait", "ReferencePortrait", "Reenactor", "Result", "Stopped"]

PictureSource = str | Path | Image.Image | np.ndarray
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Portrait:
    """A face as the networks are told of it: the cropped picture, the face in pixels of the whole frame, its
    motion.

    frame: (H, W, 3) uint8, the whole picture as it was read. crop: where in it the cropped picture lies.
    """

    picture: Image.Image
    face: Face
    motion: Motion
    crop: Crop
    frame: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class ReferencePortrait(Portrait):
    """A portrait with all that depends on it alone: latents, and the keys and values for the prompts last
    used."""

    latents: torch.Tensor
    prepared: dict[tuple[str, str], Reference] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Result:
    """picture: what was drawn. reference, driver: the crops it was drawn from. pose: the pose picture that
    steered it, 512 px. settings: those used, with every choice made. release: by name. driver is None for an
    edited face.
    frame, crop: the whole reference picture (H, W, 3) uint8, and where in it the face was. edit: of an edited
    face."""

    picture: Image.Image
    reference: Image.Image
    driver: Image.Image | None
    pose: Image.Image
    settings: Settings
    release: str
    frame: np.ndarray = field(repr=False)
    crop: Crop
    edit: Edit | None = None

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def stamp(self) -> Stamp:
        """What a file of this result should carry; see `metadata.save`."""
        return Stamp(self.settings, self.release, edit=self.edit)

    def original_size(self, feather: float | None = None) -> Image.Image:
        """The whole reference picture with what was drawn pasted back; feather 0..1 as in the settings."""
        feather = self.settings.feather if feather is None else feather
        return Image.fromarray(paste(self.frame, self.crop, np.asarray(self.picture), feather))


class Reenactor:
    """Gives the face of a reference picture the expression and head pose of a driver.

    >>> reenactor = Reenactor.from_release("demo")
    >>> reenactor.set_reference("toon.png")
    >>> reenactor.image("me.jpg", Settings(expression=1.5)).picture.save("result.png")
    """

    def __init__(
        self,
        pipeline: HelloMemePipeline,
        release: Release,
        emotion_encoder: FanEncoder | None = None,
        analyzer: FaceAnalyzer | None = None,
    ):
        self.pipeline = pipeline
        self.release = release
        self.emotion_encoder = emotion_encoder
        self.analyzer = analyzer or FaceAnalyzer()
        self.reference: ReferencePortrait | None = None
        self._negative: torch.Tensor | None = None

    @classmethod
    def from_release(
        cls,
        name: str | Release = "demo",
        base: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        loras: Sequence = (),
        **more,
    ) -> Reenactor:
        """A reenactor with the networks of a release or a local folder; the arguments are those of
        `load`."""
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                pipeline, emotion_encoder, release = load(name, base, device, dtype, loras, **more)
                return cls(pipeline, release, emotion_encoder)

    def set_reference(self, image: PictureSource, face: int | None = None) -> ReferencePortrait:
        """Find the face of the reference picture and do everything that depends on this picture only.

        image: a path, PIL picture or uint8 array (H, W, 3). face: which one, by size from 0; the largest if
        None. The portrait is kept for `image` and also returned: give it to `image` to go back to it later.
        Raises NoFaceError without a face, HelloMemeError for a picture that cannot be read, NoMemoryError.
        """
        portrait = self.portrait(image, "reference", face)
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                # The mean of the encoder's Gaussian, not a draw: one reference then serves every seed.
                latents = self.pipeline.encode(_pixels(np.asarray(portrait.picture)))
                self.reference = ReferencePortrait(**vars(portrait), latents=latents)
                return self.reference

    def image(
        self,
        driver: PictureSource,
        settings: Settings = Settings(),
        progress: Progress | None = None,
        reference: ReferencePortrait | None = None,
    ) -> Result:
        """Draw the reference with the driver's expression and head pose.

        driver: a path, PIL picture or uint8 array (H, W, 3). progress: called as `progress(step, steps)`
        after each step, from 1; raise `Stopped` in it to give up. reference: a portrait other than the one
        set last.
        Raises NoFaceError, or HelloMemeError for a driver that cannot be read or when no reference was set.
        Where the memory of the GPU runs out it tries once more with less, and raises NoMemoryError if that
        runs out too.
        """
        reference = self.chosen(reference)
        settings = settings.resolved(self.release)
        portrait = self.portrait(driver, "driver", settings.driver_face)
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

        coefficients: ARKit names and values 0..1, where names left out keep the reference's own; or all 51 as
        an array. turn: of the head, from the reference's own pose. The strengths in `settings` count as for a
        driver; the other arguments are those of `image`. See `face.edit` for groups of names, presets and
        values to start from.
        Raises HelloMemeError for other names or values, or if the control nets know no ARKit coefficients.
        """
        reference = self.chosen(reference)
        settings = settings.resolved(self.release)
        if self.emotion_encoder is not None:
            raise HelloMemeError(
                "These control nets know no ARKit coefficients: load the release with the code "
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
        progress: Callable[[str, int, int], None] | None = None,
        reference: ReferencePortrait | None = None,
        labelled: bool = True,
    ):
        """Draw the reference moved by a driver clip or motion file, as an MP4 file with the driver's sound.

        Returns a `video.Report`; see `video.make_clip` for the arguments and what is raised.
        """
        from .video import make_clip

        return make_clip(self, driver, output, settings, clip, progress, reference, labelled)

    def chosen(self, reference: ReferencePortrait | None) -> ReferencePortrait:
        """The given portrait, or the one set last; HelloMemeError if there is neither."""
        if reference is None and self.reference is None:
            raise HelloMemeError("There is no reference picture yet: set one first.")
        return reference or self.reference

    def portrait(self, image: PictureSource, name: str = "driver", face: int | None = None) -> Portrait:
        """Read a picture, find the face, crop around it, measure its motion; `name` is what errors call
        it."""
        frame = read_picture(image, name)
        found = self.analyzer.face(frame, name, face)
        crop = Crop.of([found], frame.shape, self.release.crop_scale)
        motion = Motion.from_faces([found], crop)
        if self.emotion_encoder is not None:
            motion = motion.with_emotion(self.emotion(frame, found))
        return Portrait(Image.fromarray(crop.apply(frame, self.release.size)), found, motion, crop, frame)

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
        for sparing in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                picture = self._draw(reference, motion, settings, progress, sparing)[0]
                break
        pose = Image.fromarray(pose_picture(motion)[0])
        return Result(
            picture,
            reference.picture,
            driver,
            pose,
            settings,
            self.release.name,
            reference.frame,
            reference.crop,
            edit,
        )

    def _draw(
        self,
        reference: ReferencePortrait,
        motion: Motion,
        settings: Settings,
        progress: Progress | None,
        sparing: bool = False,
    ) -> list[Image.Image]:
        """T frames of the reference, moved by `motion`; a picture is a clip of one frame."""
        prompt, negative = self.prompts(settings)
        generator = self.generator(reference, settings)

        def on_step(pipeline, step: int, timestep, tensors: dict) -> None:
            if progress is not None:
                progress(step + 1, settings.steps)

        return self.pipeline(
            self.prepared(reference, settings),
            pose_tensor(motion, self.release.condition_size)[None],
            prompt=prompt,
            negative_prompt=negative,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generator,
            callback_on_step_end=on_step,
            sparing=sparing,
            **self.code(motion),
        ).frames

    # What a picture and a clip have in common

    def prompts(self, settings: Settings) -> tuple[str, str]:
        """The user's words in front of the release's, and the negative ones."""
        prompt = ", ".join(filter(None, (settings.prompt.strip(), self.release.prompt)))
        return prompt, settings.negative_prompt.strip()

    def prepared(self, reference: ReferencePortrait, settings: Settings) -> Reference:
        """The reference's keys and values for the prompts of the settings, made unless they are at hand."""
        prompts = self.prompts(settings)
        if prompts not in reference.prepared:
            reference.prepared.clear()  # one pair of prompts at a time: some 0.1 GB at SD1.5 size
            reference.prepared[prompts] = self.pipeline.prepare_reference(reference.latents, *prompts)
        return reference.prepared[prompts]

    @staticmethod
    def generator(reference: ReferencePortrait, settings: Settings) -> torch.Generator:
        """The generator of a seed, past the draw for the reference's latents, which the released pipelines
        make first: the noise that follows is then theirs."""
        generator = torch.Generator().manual_seed(settings.seed)
        torch.randn(reference.latents.shape, generator=generator)
        return generator

    def code(self, motion: Motion) -> dict[str, torch.Tensor]:
        """The expression code that the loaded control nets take, as arguments of the pipeline."""
        if self.emotion_encoder is None:
            return {"drive_coeff": torch.from_numpy(motion.blendshapes)[None]}
        if self._negative is None:
            with torch.no_grad():
                self._negative = self.emotion_encoder.negative()[None]  # (1, 1, 548)
        return {"emotion": torch.from_numpy(motion.emotion)[None], "negative_emotion": self._negative}

    @torch.no_grad()
    def emotion(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """The emotion code (1, 548) float32 of a face in a frame (H, W, 3) uint8; NoMemoryError as for
        `image`."""
        encoder = self.emotion_encoder
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                codes = encoder(
                    torch.from_numpy(emotion_input(frame, face))[None].to(encoder.device, encoder.dtype)
                )
                return codes.float().cpu().numpy()


def _pixels(picture: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1

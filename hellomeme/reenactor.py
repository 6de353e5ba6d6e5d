"""Reenactor: pictures in, pictures out. The reference is set once, then driven any number of times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import releases
from .conditions import emotion_input, pose_picture, pose_tensor
from .crop import Crop
from .emotion import FanEncoder
from .errors import HelloMemeError
from .face import Face, FaceAnalyzer
from .motion import Motion
from .pictures import read_picture
from .pipeline import HelloMemePipeline, Reference
from .releases import Release
from .sampling import Stopped
from .settings import Settings

__all__ = ["Portrait", "ReferencePortrait", "Reenactor", "Result", "Stopped"]

PictureSource = str | Path | Image.Image | np.ndarray
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Portrait:
    """A face as the networks are told of it: its crop, the face in pixels of the whole picture, its motion."""

    picture: Image.Image
    face: Face
    motion: Motion


@dataclass(frozen=True)
class ReferencePortrait(Portrait):
    """A portrait with all that depends on it alone: latents, and the keys and values for the prompts last used."""

    latents: torch.Tensor
    prepared: dict[tuple[str, str], Reference] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Result:
    """picture: what was drawn. reference, driver: the crops it was drawn from. pose: the pose picture that steered
    it, 512 px. settings: those used, with every choice made."""

    picture: Image.Image
    reference: Image.Image
    driver: Image.Image
    pose: Image.Image
    settings: Settings

    @property
    def seed(self) -> int:
        return self.settings.seed


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
        """A reenactor with the networks of a release or a local folder; the arguments are those of `releases.load`."""
        pipeline, emotion_encoder, release = releases.load(name, base, device, dtype, loras, **more)
        return cls(pipeline, release, emotion_encoder)

    def set_reference(self, image: PictureSource, face: int | None = None) -> ReferencePortrait:
        """Find the face of the reference picture and do everything that depends on this picture only.

        image: a path, PIL picture or uint8 array (H, W, 3). face: which one, by size from 0; the largest if None.
        The portrait is kept for `image` and also returned: give it to `image` to go back to it later.
        Raises NoFaceError without a face, HelloMemeError for a picture that cannot be read.
        """
        portrait = self.portrait(image, "reference", face)
        # The mean of the encoder's Gaussian, not a draw: one reference then serves every seed.
        latents = self.pipeline.encode(_pixels(np.asarray(portrait.picture)))
        self.reference = ReferencePortrait(portrait.picture, portrait.face, portrait.motion, latents)
        return self.reference

    def image(
        self,
        driver: PictureSource,
        settings: Settings = Settings(),
        progress: Progress | None = None,
        reference: ReferencePortrait | None = None,
    ) -> Result:
        """Draw the reference with the driver's expression and head pose.

        driver: a path, PIL picture or uint8 array (H, W, 3). progress: called as `progress(step, steps)` after each
        step, from 1; raise `Stopped` in it to give up. reference: a portrait other than the one set last.
        Raises NoFaceError, or HelloMemeError for a driver that cannot be read or when no reference was set.
        """
        reference = reference or self.reference
        if reference is None:
            raise HelloMemeError("There is no reference picture yet: set one first.")
        settings = settings.resolved(self.release)
        portrait = self.portrait(driver, "driver", settings.driver_face)
        motion = portrait.motion.onto(reference.motion, settings.expression, settings.head, settings.translation)
        picture = self._draw(reference, motion, settings, progress)[0]
        pose = Image.fromarray(pose_picture(motion)[0])
        return Result(picture, reference.picture, portrait.picture, pose, settings)

    def portrait(self, image: PictureSource, name: str = "driver", face: int | None = None) -> Portrait:
        """Read a picture, find the face, crop around it, measure its motion; `name` is what errors call it."""
        frame = read_picture(image, name)
        found = self.analyzer.face(frame, name, face)
        crop = Crop.of([found], frame.shape, self.release.crop_scale)
        motion = Motion.from_faces([found], crop)
        if self.emotion_encoder is not None:
            motion = motion.with_emotion(self._emotion(emotion_input(frame, found)))
        return Portrait(Image.fromarray(crop.apply(frame, self.release.size)), found, motion)

    def _draw(
        self, reference: ReferencePortrait, motion: Motion, settings: Settings, progress: Progress | None
    ) -> list[Image.Image]:
        """T frames of the reference, moved by `motion`; a picture is a clip of one frame."""
        prompt = ", ".join(filter(None, (settings.prompt.strip(), self.release.prompt)))
        negative = settings.negative_prompt.strip()
        if (prompt, negative) not in reference.prepared:
            reference.prepared.clear()  # one pair of prompts at a time: some 0.1 GB at SD1.5 size
            ready = self.pipeline.prepare_reference(reference.latents, prompt, negative)
            reference.prepared[prompt, negative] = ready

        # The released pipelines draw the reference's latents first: skipped over, the noise of a seed is theirs.
        generator = torch.Generator().manual_seed(settings.seed)
        torch.randn(reference.latents.shape, generator=generator)

        def on_step(pipeline, step: int, timestep, tensors: dict) -> None:
            if progress is not None:
                progress(step + 1, settings.steps)

        return self.pipeline(
            reference.prepared[prompt, negative],
            pose_tensor(motion, self.release.condition_size)[None],
            prompt=prompt,
            negative_prompt=negative,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generator,
            callback_on_step_end=on_step,
            **self._expression(motion),
        ).frames

    def _expression(self, motion: Motion) -> dict[str, torch.Tensor]:
        """The expression code that the loaded control nets take, as arguments of the pipeline."""
        if self.emotion_encoder is None:
            return {"drive_coeff": torch.from_numpy(motion.blendshapes)[None]}
        with torch.no_grad():
            negative = self.emotion_encoder.negative()[None]  # (1, 1, 548)
        return {"emotion": torch.from_numpy(motion.emotion)[None], "negative_emotion": negative}

    @torch.no_grad()
    def _emotion(self, aligned: np.ndarray) -> np.ndarray:
        """(3, 224, 224) in [-1, 1] -> (1, 548) float32."""
        encoder = self.emotion_encoder
        codes = encoder(torch.from_numpy(aligned)[None].to(encoder.device, encoder.dtype))
        return codes.float().cpu().numpy()


def _pixels(picture: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1

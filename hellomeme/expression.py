"""From a face to the expression that the control nets take."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from .errors import HelloMemeError
from .face.conditions import emotion_input
from .face.detect import Face
from .face.motion import Motion
from .face.parts import PartBoxes, clip_input, part_pictures, part_squares
from .memory import attempts
from .models.fan_encoder import FanEncoder

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

WORDS = {"emotion": "emotion codes", "face_parts": "embeddings of eyes and mouth"}  # of motion.CODES


class ExpressionEncoders(torch.nn.Module):
    """The networks that read an expression from the pixels of a face, where the control nets ask for it."""

    def __init__(
        self,
        emotion: FanEncoder | None = None,
        face_parts: CLIPVisionModelWithProjection | None = None,
        negative_emotion: Literal["black picture", "zeros"] = "black picture",
    ):
        """emotion: for control nets that take emotion codes ("pd_fpg"). face_parts: for those that take
        embeddings of eyes and mouth beside ARKit coefficients. negative_emotion: the code of the negative
        half of guidance."""
        super().__init__()
        self.emotion = emotion
        self.face_parts = face_parts
        self.negative_emotion = negative_emotion

    def read(self, frame: np.ndarray, face: Face, motion: Motion) -> Motion:
        """The motion of one picture, with the codes of its face. frame: (H, W, 3) uint8.

        Raises NoMemoryError as `emotion_code` does.
        """
        reading = Reading(self)
        reading.see(frame, face)
        return reading.complete(motion, lambda: [frame])

    def emotion_code(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """The emotion code (1, 548) float32 of a face in a frame (H, W, 3) uint8.

        If the GPU memory runs out, it tries once more with less, then raises NoMemoryError.
        """
        codes = self._encoded(self.emotion, emotion_input(frame, face)[None])
        return codes.float().cpu().numpy()

    def part_embeddings(self, pictures: np.ndarray) -> np.ndarray:
        """The CLIP embeddings (1, 3, 1024) float32 of the parts of a face, from `face.parts.part_pictures`.

        Raises NoMemoryError as `emotion_code` does.
        """
        output = self._encoded(self.face_parts, clip_input(pictures))
        return output.image_embeds.float().cpu().numpy()[None]

    def needed(self, motion: Motion, release: str) -> Motion:
        """The motion with the codes that the control nets take, and no others.

        release: its name. Raises HelloMemeError where the motion lacks some.
        """
        for name, words in WORDS.items():
            if getattr(self, name) is None:
                motion = replace(motion, **{name: None})
            elif getattr(motion, name) is None:
                raise HelloMemeError(
                    f"The motion file holds no {words}, which {release} needs: make it "
                    "again from the driver with this release."
                )
        return motion

    def arguments(self, motion: Motion, expression_types: Collection[str]) -> dict[str, torch.Tensor]:
        """The expression of T frames as arguments of the pipeline. expression_types: of its control nets."""
        arguments = {}
        if "drive_coeff" in expression_types:
            arguments["drive_coeff"] = torch.from_numpy(motion.blendshapes)[None]  # (1, T, 51)
            if self.face_parts is not None:
                arguments["face_parts"] = torch.from_numpy(motion.face_parts)[None]  # (1, T, 3, 1024)
        if "pd_fpg" in expression_types:
            arguments["emotion"] = torch.from_numpy(motion.emotion)[None]  # (1, T, 548)
            arguments["negative_emotion"] = self._negative_code
        return arguments

    @functools.cached_property
    @torch.no_grad()
    def _negative_code(self) -> torch.Tensor:
        """The emotion code (1, 1, 548) of the negative half of guidance."""
        black = self.emotion.negative()[None]
        return torch.zeros_like(black) if self.negative_emotion == "zeros" else black

    @torch.no_grad()
    def _encoded(self, encoder: torch.nn.Module, values: np.ndarray) -> Any:
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                return encoder(torch.from_numpy(values).to(encoder.device, encoder.dtype))


class Reading:
    """The codes of one face through a clip. `see` takes its frames one by one and keeps numbers only."""

    def __init__(self, encoders: ExpressionEncoders):
        self.encoders = encoders
        self.codes: list[np.ndarray] = []
        self.boxes: list[PartBoxes] = []

    def see(self, frame: np.ndarray, face: Face) -> None:
        """A frame (H, W, 3) uint8 that shows the face; frames without it are left out."""
        if self.encoders.emotion is not None:
            self.codes.append(self.encoders.emotion_code(frame, face))
        if self.encoders.face_parts is not None:
            self.boxes.append(PartBoxes.of(face))

    def complete(
        self,
        motion: Motion,
        frames: Callable[[], Iterable[np.ndarray]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Motion:
        """The motion of the clip with the codes. A frame without the face gets those of the last one before
        it, or of the first, as in `Motion.from_faces`.

        frames: gives all frames of the clip once more, for the parts of the face: their size is known only
        when the whole clip has been seen. progress: called with the number of frames done in this second
        pass.
        """
        seen = np.maximum(motion.valid.cumsum() - 1, 0)
        if self.codes:
            motion = replace(motion, emotion=np.concatenate(self.codes)[seen])
        if self.boxes:
            squares, boxes, embeddings = part_squares(self.boxes), iter(self.boxes), []
            for done, (valid, frame) in enumerate(zip(motion.valid, frames(), strict=True), 1):
                if valid:
                    pictures = part_pictures(frame, next(boxes).matrix, squares)
                    embeddings.append(self.encoders.part_embeddings(pictures))
                progress(done)
            motion = replace(motion, face_parts=np.concatenate(embeddings)[seen])
        return motion

"""From a face to the expression that the control nets take."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection
from typing import Literal

import numpy as np
import torch

from .face.conditions import emotion_input
from .face.detect import Face
from .face.motion import Motion
from .memory import attempts
from .models.fan_encoder import FanEncoder


class ExpressionEncoders(torch.nn.Module):
    """The networks that read an expression from the pixels of a face, where the control nets ask for it."""

    def __init__(
        self,
        emotion: FanEncoder | None = None,
        negative_emotion: Literal["black picture", "zeros"] = "black picture",
    ):
        """emotion: for control nets that take emotion codes ("pd_fpg"). negative_emotion: the code of the
        negative half of guidance."""
        super().__init__()
        self.emotion = emotion
        self.negative_emotion = negative_emotion

    def read(self, frame: np.ndarray, face: Face, motion: Motion) -> Motion:
        """The motion of one picture, with the codes of its face. frame: (H, W, 3) uint8.

        Raises NoMemoryError as `emotion_code` does.
        """
        return motion if self.emotion is None else motion.with_emotion(self.emotion_code(frame, face))

    @torch.no_grad()
    def emotion_code(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """The emotion code (1, 548) float32 of a face in a frame (H, W, 3) uint8.

        If the GPU memory runs out, it tries once more with less, then raises NoMemoryError.
        """
        encoder = self.emotion
        for _ in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                codes = encoder(
                    torch.from_numpy(emotion_input(frame, face))[None].to(encoder.device, encoder.dtype)
                )
                return codes.float().cpu().numpy()

    def arguments(self, motion: Motion, expression_types: Collection[str]) -> dict[str, torch.Tensor]:
        """The expression of T frames as arguments of the pipeline. expression_types: of its control nets."""
        arguments = {}
        if "drive_coeff" in expression_types:
            arguments["drive_coeff"] = torch.from_numpy(motion.blendshapes)[None]  # (1, T, 51)
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

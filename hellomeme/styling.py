"""Changes which weights a loaded pipeline draws with, in place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .acceleration import accelerate
from .models.layout import use_fastest_layout
from .pipeline import HelloMemePipeline, Reference
from .portrait import ReferencePortrait, pixels
from .releases.embeddings import read_embeddings
from .releases.few_steps import OFF, FewSteps, distilled_loras, find_preset
from .releases.hub import Progress
from .releases.loras import load_loras
from .releases.networks import locate
from .releases.parts import load_parts, scheduler_of
from .releases.prediction import Prediction
from .releases.styles import Style

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

    from .inputs import Conditions
    from .releases.table import Release


class Styling:
    """The style and few-step preset that a pipeline has now.

    Changing LoRA or the preset leaves the pipeline's networks where they are; another base model or
    autoencoder is loaded in their place. References are prepared anew where the weights have changed.
    """

    def __init__(self, pipeline: HelloMemePipeline, release: Release, style: Style = Style()):
        """style: the one that the pipeline was loaded with."""
        self.pipeline, self.release = pipeline, release
        self.style, self.few_steps = style, OFF
        self._schedulers = pipeline.scheduler, pipeline.clip_scheduler  # those without a preset

    def apply(self, style: Style, few_steps: str, progress: Progress | None = None) -> None:
        """Make these the pipeline's own; what is the case already costs nothing.

        progress: called during downloads, see `hub.fetch`. Raises HelloMemeError for what cannot be loaded or
        does not fit, OutOfMemoryError of torch without GPU memory; the weights are then as before, except
        that another base model may have lost its LoRA.
        """
        if (style, few_steps) == (self.style, self.few_steps):
            return
        preset = find_preset(few_steps, self.release)
        if style.models != self.style.models:
            self._load_models(style, progress)
        embeddings, schedulers = self.pipeline.embeddings, None
        if style.embeddings != self.style.embeddings:
            embeddings = read_embeddings(self.pipeline, style.embeddings, progress)
        if few_steps != self.few_steps:
            if self.few_steps == OFF:
                self._schedulers = self.pipeline.scheduler, self.pipeline.clip_scheduler
            schedulers = (self._scheduler_of(preset), None) if preset else self._schedulers
        # Nothing may fail after this, or the LoRA would be others than those of `self.style`
        load_loras(self.pipeline, [*style.loras, *distilled_loras(preset, style)], progress)
        self.pipeline.embeddings = embeddings
        if schedulers is not None:
            self.pipeline.register_modules(scheduler=schedulers[0], clip_scheduler=schedulers[1])
        self.style, self.few_steps = style, few_steps

    def _scheduler_of(self, preset: FewSteps) -> SchedulerMixin:
        """The scheduler of a preset, for what the base model predicts."""
        own = self._schedulers[0]
        return scheduler_of(preset.sampler, None, Prediction.of_config(own.config, type(own).__name__))

    def prepared(
        self, portrait: ReferencePortrait, prompts: tuple[str, str], conditions: Conditions | None = None
    ) -> Reference:
        """The reference's keys and values for the prompts and the weights, made unless they are at hand.

        conditions: of the reference itself, as for `prepare_reference`.
        """
        key = self.style, self.few_steps, *prompts
        if key not in portrait.prepared:
            portrait.prepared.clear()  # one at a time: some 0.1 GB at SD1.5 size
            latents = portrait.latents
            if portrait.style.models != self.style.models:
                latents = self.encode(portrait.picture)
            portrait.prepared[key] = self.pipeline.prepare_reference(latents, *prompts, conditions)
        return portrait.prepared[key]

    def encode(self, picture) -> torch.Tensor:
        """The latents (1, C, h, w) of a PIL picture of the networks' size.

        The mean of the encoder's Gaussian, not a draw: one reference then serves every seed.
        """
        return self.pipeline.encode(pixels(np.asarray(picture)))

    def _load_models(self, style: Style, progress: Progress | None) -> None:
        pipeline, row = self.pipeline, self.release
        adapter, unet = pipeline.hm_reference, pipeline.unet
        parts = load_parts(row, locate(row, row.base), style, adapter, unet.dtype, progress)
        made, _ = parts.pop("scheduler"), parts.pop("clip_scheduler")
        own = (pipeline.scheduler, pipeline.clip_scheduler) if self.few_steps == OFF else self._schedulers
        prediction = Prediction.of_config(made.config, type(made).__name__)
        schedulers = tuple(one and prediction.scheduler(one) for one in own)
        self._exchange(parts, pipeline.loading_device)
        accelerate(pipeline)
        pipeline.base = style.base_source or row.base.elsewhere
        self.style = replace(style, loras=(), embeddings=self.style.embeddings)
        self.few_steps, self._schedulers = OFF, schedulers
        pipeline.register_modules(scheduler=schedulers[0], clip_scheduler=schedulers[1])

    def _exchange(self, parts: dict[str, Any], device: torch.device) -> None:
        """Puts parts in the place of the pipeline's own, which make room for them on the device first, and
        come back where they find none."""
        if self.pipeline.placement is not None:
            self.pipeline.placement.clear()
        own = {name: getattr(self.pipeline, name) for name in parts}
        _move(own, "cpu")
        try:
            _move(parts, device)
        except RuntimeError:
            _move(parts, "cpu")
            _move(own, device)
            raise
        self.pipeline.register_modules(**parts)


def _move(parts: dict[str, Any], device: torch.device | str) -> None:
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(device)
            use_fastest_layout(part)

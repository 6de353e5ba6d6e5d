"""From noise to a clip of any length, a few frames at a time.

Three ways, as released: each frame alone; or twice, first one frame after the other, then together, in
overlapping windows (v1, v2); or together, from key frames to the frames between them (`keyframes`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel, UNetMotionModel
from torch import Tensor

from ..control_maps import MOST_KEPT, ClipMaps, ControlMaps, Maps
from ..inputs import Conditions, Reference
from ..pipeline import HelloMemePipeline
from .image import Denoise, draws_noise, last_guided, takes_noise, with_timesteps
from .keyframes import EXTRA_NOISE, sample_key_frames
from .plan import ClipPlan
from .sharing import ALONE, Share
from .windows import NoiseByFrame, frames_at_once, sample_frames, sample_windows

OnProgress = Callable[[float], None]


@torch.no_grad()
def draw_clip(
    pipeline: HelloMemePipeline,
    reference: Reference,
    conditions: Callable[[np.ndarray], Conditions],
    plan: ClipPlan,
    text: Tensor,
    generator: torch.Generator,
    on_progress: OnProgress | None = None,
    step_generator: torch.Generator | None = None,
    share: Share = ALONE,
) -> Iterator[Tensor]:
    """Yields scaled latents (1, C, T, h, w) of all frames in order, some at a time.

    conditions: frame numbers -> what those frames are to show, with one negative emotion for all. text: from
    `HelloMemePipeline.encode_prompt`.
    generator: draws, in the released order, the noise of one frame and then, with a first pass, that of the
    padded clip; with key frames, the noise of the clip and 13 frames more.
    on_progress: called after every step with the share of the work that is done, 0 to 1; an exception it
    raises ends the clip. step_generator: draws what a stochastic scheduler adds; `generator` if None.
    share: of this process, if several draw the clip together, all with the same arguments.
    """
    scheduler = pipeline.clip_scheduler or pipeline.scheduler
    if not plan.key_frames and scheduler.config.get("rescale_betas_zero_snr"):
        plan = replace(plan, first_pass=False)  # of which nothing would be left under pure noise
    total = plan.predictions(lambda steps: len(with_timesteps(scheduler, steps).timesteps))
    drawing = _Drawing(
        pipeline,
        reference,
        conditions,
        plan,
        text,
        generator,
        step_generator or generator,
        _progress_counter(total, on_progress),
        share,
        ClipMaps(0 if plan.low_memory else MOST_KEPT),
    )
    if not plan.together:
        frames = drawing.alone(drawing.one_noise(), np.arange(plan.frames), plan.steps, share)
    else:
        frames = drawing.by_key_frames() if plan.key_frames else drawing.in_windows()
    left = plan.frames
    for latents in frames:
        yield latents[:, :, :left]
        left -= latents.shape[2]
        if left <= 0:
            return


@dataclass(frozen=True)
class _Drawing:
    """The arguments of `draw_clip`, and the three ways to draw with them.

    on_step: counts predicted frames. maps: the control maps of the clip.
    """

    pipeline: HelloMemePipeline
    reference: Reference
    conditions: Callable[[np.ndarray], Conditions]
    plan: ClipPlan
    text: Tensor
    generator: torch.Generator
    step_generator: torch.Generator
    on_step: Callable[[int], None]
    share: Share
    maps: ClipMaps

    @property
    def scheduler(self) -> SchedulerMixin:
        return self.pipeline.clip_scheduler or self.pipeline.scheduler

    @property
    def draws_noise(self) -> bool:
        """Whether steps draw from the generator."""
        return draws_noise(self.scheduler, self.plan.steps)

    def one_noise(self) -> Tensor:
        """The next draw for one frame."""
        unet, (_, channels, height, width) = self.pipeline.unet, self.reference.latents.shape
        noise = torch.randn(1, channels, 1, height, width, generator=self.generator)
        return noise.to(self.pipeline.running_device, unet.dtype)

    def noise(self, frames: int) -> NoiseByFrame:
        """The next draw for so many frames."""
        unet, (_, channels, height, width) = self.pipeline.unet, self.reference.latents.shape
        return NoiseByFrame(
            self.generator, channels, frames, height, width, self.pipeline.running_device, unet.dtype
        )

    def denoiser(
        self,
        frames: np.ndarray,
        unet: UNet2DConditionModel | UNetMotionModel,
        steps: int,
        alone: bool,
        **more,
    ) -> Denoise:
        """What predicts these frames; beyond the end of the clip its last one is shown.

        alone: without other frames, so that few are in progress. more: of `HelloMemePipeline.denoiser`.
        """
        plan, pipeline, device = self.plan, self.pipeline, self.reference.latents.device
        shown = np.minimum(frames, self.plan.frames - 1)

        def make(negative: Maps | None) -> ControlMaps:
            given = self.conditions(shown)
            return pipeline.control_maps(given, plan.guidance, plan.low_memory, negative, device)

        more |= {"reuse": plan.reuse, "last_guided": last_guided(self.scheduler, steps, plan.guidance_end)}
        control = self.maps.of(make, keep=alone)
        return pipeline.denoiser(
            self.reference, self.text, plan.guidance, control, unet, plan.low_memory, **more
        )

    def alone(
        self,
        noise: Tensor,
        frames: np.ndarray,
        steps: int,
        share: Share,
        unet: UNet2DConditionModel | None = None,
        chained: bool = False,
    ) -> Iterator[Tensor]:
        """Yields latents (1, C, T, h, w) of frames with these numbers, which are drawn alone, from the same
        noise (1, C, 1, h, w)."""
        return sample_frames(
            lambda positions: self.denoiser(frames[positions], unet or self.pipeline.unet, steps, True),
            self.scheduler,
            noise,
            len(frames),
            steps,
            chained,
            self.step_generator,
            self.on_step,
            1 if self.plan.low_memory else frames_at_once(*noise.shape[-2:]),
            share,
        )

    def first_pass(self, noise: Tensor, frames: np.ndarray, share: Share, chained: bool) -> Iterator[Tensor]:
        """Yields latents (1, C, 1, h, w) of each frame. The released style x1 draws them with the UNet that
        sees the reference."""
        unet = self.pipeline.reference_unet
        for latents in self.alone(noise, frames, self.plan.first_steps, share, unet, chained):
            yield from latents.split(1, dim=2)

    def in_windows(self) -> Iterator[Tensor]:
        """Releases v1 and v2: the frames of all windows, those beyond the end of the clip included."""
        plan, noise = self.plan, self.one_noise()
        # Both passes draw from one generator by turns, in an order that tasks at the same time would change
        share = self.share.in_order if self.draws_noise else self.share
        if plan.first_pass:
            fresh_noise = self.noise(plan.padded)
            clean = self.first_pass(noise, np.arange(plan.frames), share, not plan.fast)
            starts = zip(_padded(clean, plan.padded), fresh_noise, strict=True)
        else:
            starts = ((None, noise) for _ in range(plan.padded))
        moving = functools.partial(
            self.denoiser, unet=self.pipeline.motion_unet(), steps=plan.steps, alone=False
        )
        return sample_windows(
            moving,
            self.scheduler,
            starts,
            plan.windows,
            plan.steps,
            self.step_generator,
            self.on_step,
            share=share,
        )

    def by_key_frames(self) -> Iterator[Tensor]:
        """Releases v3 to v5b; with a first pass v3 and v4."""
        plan, pipeline, unet = self.plan, self.pipeline, self.pipeline.motion_unet()
        noise = self.noise(plan.frames + EXTRA_NOISE)
        ends = None
        if plan.first_pass:
            latents = self.first_pass(next(iter(noise)), plan.ends, self.share, False)
            ends = dict(zip(plan.ends, latents, strict=True))

        def pad(latents: Tensor) -> dict[str, Tensor]:
            """In the memory of the computer: some 20 MB each at SD1.5 size in half precision."""
            features = pipeline.pad_features(latents[:, :, 0], self.text)
            return {place: x.cpu() for place, x in features.items()}

        def moving(frames: np.ndarray, pads: tuple[dict[str, Tensor], ...] | None) -> Denoise:
            return self.denoiser(frames, unet, plan.steps, False, motion=pipeline.hm_motion, pads=pads)

        by_turns = self.draws_noise and not takes_noise(self.scheduler)
        return sample_key_frames(
            moving,
            pad,
            self.scheduler,
            noise,
            plan.frames,
            plan.steps,
            plan.window,
            ends,
            self.step_generator,
            self.on_step,
            share=self.share.in_order if by_turns else self.share,
        )


def _padded(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The frames, then the last but one again up to `count`: what the released code starts padding from."""
    earlier = latest = None
    for frame in frames:
        earlier, latest = latest, frame
        yield frame
        count -= 1
    for _ in range(count):
        yield latest if earlier is None else earlier


def _progress_counter(total: int, on_progress: OnProgress | None) -> Callable[[int], None]:
    """A function that counts predicted frames and reports the share of `total` that is done."""
    done = 0

    def count(frames: int) -> None:
        nonlocal done
        done += frames
        if on_progress is not None:
            on_progress(min(done / total, 1.0))

    return count

"""From a motion to pictures: what the pipeline is told, and what becomes of its result."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from .beside import map_beside
from .expression import ExpressionEncoders
from .face.conditions import condition_tensor
from .face.motion import Motion
from .memory import attempts
from .memory_choice import portions
from .pipeline import Conditions, HelloMemePipeline, Reference, decoded_at_once
from .portrait import ReferencePortrait
from .releases.load import add_motion
from .releases.styles import Style
from .releases.table import Release
from .sampling.clip import draw_clip
from .sampling.plan import ClipPlan
from .sampling.sharing import ALONE, Share, Team
from .settings import ClipSettings, Settings
from .styling import Styling
from .threads import usable_cores
from .upscale import Upscaler, check_upscaling, upscaled

Progress = Callable[[int, int], None]


class Drawing:
    """The part of `Reenactor` that draws motions which were retargeted before."""

    pipeline: HelloMemePipeline
    release: Release
    encoders: ExpressionEncoders
    styling: Styling
    style: Style
    upscaler: Upscaler | None

    def draw(
        self,
        motion: Motion,
        reference: ReferencePortrait,
        settings: Settings,
        progress: Progress | None = None,
    ) -> Image.Image:
        """The reference with a motion of one frame, which is retargeted; settings are resolved, and upscaling
        has no effect.

        If the GPU memory runs out, it tries once more with less, then raises NoMemoryError.
        """

        def on_step(pipeline, step: int, timestep, tensors: dict) -> None:
            if progress is not None:
                progress(step + 1, settings.steps)

        prompt, negative = settings.prompts(self.release)
        conditions = self.conditions(motion, reference)
        for low_memory in attempts():
            low_memory = low_memory or self.pipeline.low_memory
            with contextlib.suppress(torch.OutOfMemoryError):
                prepared = self.prepared(reference, settings)
                with torch.inference_mode():  # less work for each operation than without gradients alone
                    return self.pipeline(
                        prepared,
                        **vars(conditions),
                        prompt=prompt,
                        negative_prompt=negative,
                        num_inference_steps=settings.steps,
                        guidance_scale=settings.guidance,
                        generator=reference.generator(settings.seed),
                        callback_on_step_end=on_step,
                        low_memory=low_memory,
                        reuse=settings.reuse,
                        guidance_end=settings.guidance_end,
                    ).frames[0]

    def frames(
        self,
        reference: ReferencePortrait,
        motion: Motion,
        settings: Settings,
        clip: ClipSettings,
        progress: Callable[[str, float, int], None],
        share: Share = ALONE,
    ) -> Iterator[np.ndarray]:
        """Yields the frames of a clip, (size, size, 3) uint8, upscaled where the settings, which are resolved
        ones, say so. motion: retargeted. share: of this process, if several draw the clip together; each must
        take all of the frames.

        If the GPU memory runs out, the remaining frames are drawn in smaller batches; then NoMemoryError.
        """
        done, plan = 0, None
        for low_memory in attempts():
            with contextlib.suppress(torch.OutOfMemoryError):
                together = clip.motion and share.agreed(lambda: add_motion(self.pipeline, self.release))
                if plan is None:
                    plan = self._plan(len(motion), settings, clip, together, share)
                plan = plan.with_low_memory(started=done > 0) if low_memory else plan
                frames = self._clip_frames(reference, motion, settings, plan, progress, share)
                for frame in itertools.islice(frames, done, None):
                    yield frame
                    done += 1
                return

    def _plan(
        self, frames: int, settings: Settings, clip: ClipSettings, together: bool, share: Share
    ) -> ClipPlan:
        """How to draw a clip, in portions for which all processes have the memory."""
        plan = ClipPlan.of(frames, settings, clip, self.release, together)
        needed = share.map(lambda _: torch.tensor(portions(self.pipeline, plan)), range(share.size))
        return plan.in_portions(max(map(int, needed)))

    def shared_frames(
        self,
        share: Team,
        reference: ReferencePortrait,
        motion: Motion | None,
        settings: Settings,
        clip: ClipSettings,
        progress: Callable[[str, float, int], None],
    ) -> Iterator[np.ndarray]:
        """Yields the frames of a clip that several processes draw, in each of them. motion: that of the first
        process counts. The other arguments are those of `frames`."""
        values = {}
        for name in (field.name for field in dataclasses.fields(Motion) if field.name != "rate"):
            own = getattr(motion, name, None)
            first, *_ = share.exchange(None if own is None else torch.from_numpy(own))
            values[name] = None if first is None else first.numpy()
        yield from self.frames(reference, Motion(**values), settings, clip, progress, share)

    def _clip_frames(
        self,
        reference: ReferencePortrait,
        motion: Motion,
        settings: Settings,
        plan: ClipPlan,
        progress: Callable[[str, float, int], None],
        share: Share,
    ) -> Iterator[np.ndarray]:
        def conditions(frames: np.ndarray) -> Conditions:
            return self.conditions(motion.at(frames), reference)

        def on_progress(share: float) -> None:
            progress("drawing", share * len(motion), len(motion))

        prepared = share.agreed(lambda: self.prepared(reference, settings))
        generator = reference.generator(settings.seed)
        text = self.pipeline.encode_prompt(*settings.prompts(self.release))

        def pictures(latents: torch.Tensor) -> torch.Tensor:
            """(T, H, W, 3) uint8."""
            decoded = self.pipeline.decode(latents)[0].permute(1, 2, 3, 0)  # (T, H, W, 3) in [0, 1]
            small = (decoded * 255).round().byte().cpu().numpy()
            frames = [upscaled(picture, settings, self.upscaler) for picture in small]
            return torch.from_numpy(np.stack(frames))

        parts = draw_clip(
            self.pipeline, prepared, conditions, plan, text, generator, on_progress, share=share
        )
        count = decoded_at_once(prepared.latents)
        portions = itertools.chain.from_iterable(latents.split(count, 2) for latents in parts)
        # Networks that draw with one thread leave a core free, if there is another one
        spare = self.pipeline.running_device.type == "cpu" and torch.get_num_threads() < usable_cores()
        mapped = map_beside if spare and share.size == 1 else share.map
        for frames in mapped(pictures, portions):
            yield from frames.numpy()

    def resolved(self, settings: Settings) -> Settings:
        """The settings with the release's defaults; HelloMemeError for what cannot be done here."""
        check_upscaling(settings, self.upscaler)
        return settings.resolved(self.release)

    def conditions(self, motion: Motion, reference: ReferencePortrait) -> Conditions:
        """What the pipeline is told of a motion of T frames, for a reference."""
        condition = condition_tensor(motion, self.release.condition_size, reference.shape)[None]
        return Conditions(condition, **self.encoders.arguments(motion, self.pipeline.expression_types))

    def prepared(self, reference: ReferencePortrait, settings: Settings) -> Reference:
        """The reference's keys and values for the prompts and the few-step preset of the settings, which the
        pipeline then has; made unless they are at hand."""
        self.styling.apply(self.style, settings.few_steps)
        own = self.conditions(reference.motion, reference) if self.release.reference_control else None
        return self.styling.prepared(reference, settings.prompts(self.release), own)

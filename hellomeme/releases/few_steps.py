"""Few-step presets: a LoRA distilled for 4 to 8 steps, with the scheduler, steps and guidance made for it."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import HelloMemeError
from .styles import NO_LORA, Style
from .table import EULER, Release, Sampler

OFF = "off"
# Stable Diffusion 1.5's own schedule, as its model folder has it; by default the classes end elsewhere.
SCHEDULE = {**EULER, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}


@dataclass(frozen=True)
class FewSteps:
    """One row. lora: as in `styles.Lora`, applied at full strength. steps, guidance: the preset's defaults;
    1 means no guidance. source: where the scheduler, steps and guidance are recommended."""

    name: str
    title: str
    lora: str
    sampler: Sampler
    steps: int
    guidance: float
    source: str


PRESETS = (
    FewSteps(
        "tcd",
        "TCD, 4 steps",
        "h1t/TCD-SD15-LoRA",
        # The scheduler's own stochasticity (eta, "gamma" in the paper) is the recommended 0.3
        Sampler("TCDScheduler", SCHEDULE),
        steps=4,
        guidance=1.0,
        source="model card of h1t/TCD-SD15-LoRA: TCDScheduler, 4 steps, guidance 0, eta 0.3",
    ),
    FewSteps(
        "lcm",
        "LCM, 4 steps",
        "latent-consistency/lcm-lora-sdv1-5",
        Sampler("LCMScheduler", SCHEDULE),
        steps=4,
        guidance=1.0,
        source="model card of latent-consistency/lcm-lora-sdv1-5: LCMScheduler, 2 to 8 steps, guidance off "
        "or 1 to 2",
    ),
    FewSteps(
        "hyper-4",
        "Hyper-SD, 4 steps",
        "ByteDance/Hyper-SD/Hyper-SD15-4steps-lora.safetensors",
        Sampler("DDIMScheduler", {**SCHEDULE, "timestep_spacing": "trailing"}),
        steps=4,
        guidance=1.0,
        source="model card of ByteDance/Hyper-SD: DDIMScheduler, trailing timesteps, guidance 0",
    ),
    FewSteps(
        "hyper-8",
        "Hyper-SD, 8 steps",
        "ByteDance/Hyper-SD/Hyper-SD15-8steps-lora.safetensors",
        Sampler("DDIMScheduler", {**SCHEDULE, "timestep_spacing": "trailing"}),
        steps=8,
        guidance=1.0,
        source="model card of ByteDance/Hyper-SD: DDIMScheduler, trailing timesteps, guidance 0",
    ),
)
NAMES = (OFF, *(preset.name for preset in PRESETS))


def find_preset(name: str, release: Release) -> FewSteps | None:
    """The preset of a name, None for OFF. HelloMemeError for a release that it was not made for."""
    if name == OFF:
        return None
    if not release.has_styles:
        raise HelloMemeError(
            f"The few-step preset {name} is made for Stable Diffusion 1.5, on which {release.name} is not "
            f"built: leave few steps off{', it draws in one step already' if release.steps == 1 else ''}."
        )
    return next(preset for preset in PRESETS if preset.name == name)


def distilled_loras(preset: FewSteps | None, style: Style) -> list[str]:
    """The sources of the LoRA that a preset draws with beside those of the style: one or none."""
    chosen = [] if preset is None else [style.few_steps_lora or preset.lora]
    return [source for source in chosen if source != NO_LORA]

"""Text keeps working: captions drawn by the plain base, and with the adapters inserted without conditions.

Without conditions means what guidance takes as the negative: empty latents for a reference, a black condition
picture, all coefficients 0. The adapters still take part at every place of the UNet. Does the picture still
follow the words? Measured on colour words: is the drawn background, shirt or hair nearer to its word in the
caption than to all others?
"""

from __future__ import annotations

import re

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage.color import rgb2lab

from hellomeme.inputs import BLACK, Conditions
from hellomeme.sampling.image import guided, sample
from training.dataset import FIRST_IDENTITY
from training.evaluation.bench import Bench
from training.pictures import to_images
from training.toon import make_identity, random_expression, random_pose, render
from training.toon.identity import HAIRS, PAINTS, hsv

GUIDANCE, STEPS = 3.0, 10
PALETTES = {
    "background": {name: hsv(*paint) for name, paint in PAINTS.items()},
    "shirt": {name: hsv(*paint) for name, paint in PAINTS.items()},
    "hair": {name: hsv(*np.mean(ranges, axis=1)) for name, ranges in HAIRS.items()},
}
# Where to look, as fractions of the picture (left, top, right, bottom): most of it is what it should be
# wherever the head turns. How well that works is measured on the renderer's own pictures of the captions.
REGIONS = {
    "background": ((0.0, 0.0, 0.12, 0.3), (0.88, 0.0, 1.0, 0.3)),
    "shirt": ((0.25, 0.97, 0.36, 1.0), (0.64, 0.97, 0.75, 1.0)),
    "hair": ((0.42, 0.13, 0.58, 0.19),),
}


def words(caption: str) -> dict[str, str]:
    """The colour words of a caption, by region; no hair for bald and shaved heads."""
    found = {region: re.search(rf"(\w+) {region}\b", caption) for region in ("background", "shirt")}
    colours = {region: match[1] for region, match in found.items() if match}
    hair = re.search(rf"\b({'|'.join(HAIRS)})\b", caption.split(" background")[0].rsplit(",", 1)[0])
    if hair and "buzz" not in caption and "bald" not in caption:
        colours["hair"] = hair[1]
    return colours


def colour(picture: np.ndarray, region: str) -> str:
    """The word whose colour is nearest (in CIELAB) to the median colour of a region of a picture
    (S, S, 3)."""
    size = len(picture)
    patches = []
    for box in REGIONS[region]:
        left, top, right, bottom = (round(size * side) for side in box)
        patches.append(picture[top:bottom, left:right].reshape(-1, 3))
    seen = np.median(np.concatenate(patches), axis=0)
    names, paints = zip(*PALETTES[region].items(), strict=True)
    lab = rgb2lab(np.stack([seen, *paints])[None] / 255)[0]
    return names[np.linalg.norm(lab[1:] - lab[0], axis=1).argmin()]


def agreement(pictures: np.ndarray, captions: list[str]) -> dict[str, float]:
    """Share of pictures whose background, shirt and hair have the colour of the caption's word; and of all
    words."""
    right = {region: [] for region in REGIONS}
    for picture, caption in zip(pictures, captions, strict=True):
        for region, word in words(caption).items():
            right[region].append(colour(picture, region) == word)
    figures = {region: np.mean(hits) for region, hits in right.items() if hits}
    return figures | {"all words": np.mean(np.concatenate(list(right.values())))}


def shuffled(pictures: np.ndarray, captions: list[str]) -> dict[str, float]:
    """Chance: the mean agreement of pictures with each other's captions, over all shifts of the list."""
    shifts = [agreement(pictures, captions[k:] + captions[:k]) for k in range(1, len(captions))]
    return {name: np.mean([figures[name] for figures in shifts]) for name in shifts[0]}


def noise_of(bench: Bench, number: int) -> torch.Tensor:
    unet = bench.pipeline.unet.config
    shape = (1, unet.in_channels, 1, unet.sample_size, unet.sample_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


@torch.no_grad()
def by_base(bench: Bench, captions: list[str], steps: int = STEPS) -> np.ndarray:
    """(N, S, S, 3) uint8: captions drawn by the UNet alone."""
    pipeline, pictures = bench.pipeline, []
    for i, caption in enumerate(captions):
        text = pipeline.encode_prompt(caption)

        def denoise(latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor = text) -> torch.Tensor:
            return pipeline.unet(latents[:, :, 0], timestep, encoder_hidden_states=text).sample[:, :, None]

        latents = sample(guided(denoise, GUIDANCE), pipeline.scheduler, noise_of(bench, i), steps)
        pictures.append(to_images(2 * pipeline.decode(latents)[:, :, 0] - 1)[0])
    return np.stack(pictures)


def by_adapted(bench: Bench, captions: list[str], steps: int = STEPS) -> np.ndarray:
    """(N, S, S, 3) uint8: the same captions and noise with the adapters inserted, without conditions."""
    pipeline, pictures, size = bench.pipeline, [], bench.release.condition_size
    unseen = Conditions(torch.full((1, 3, 1, size, size), BLACK), torch.zeros(1, 1, 51))
    own = unseen if bench.release.reference_control else None
    nothing = pipeline.prepare_reference(torch.zeros_like(noise_of(bench, 0)[:, :, 0]), conditions=own)
    for i, caption in enumerate(captions):
        result = pipeline(
            nothing,
            unseen.condition,
            unseen.drive_coeff,
            prompt=caption,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            noise=noise_of(bench, i),
        )
        pictures.append(np.asarray(result.frames[0]))
    return np.stack(pictures)


def text(
    bench: Bench, count: int = 48, steps: int = STEPS
) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """Figures of base, adapters and the renderer's own pictures of `count` held-out captions; and a grid to
    look at."""
    identities = [make_identity(FIRST_IDENTITY["heldout"] + i) for i in range(count)]
    rng = np.random.default_rng(0)
    captions = [identity.caption for identity in identities]
    drawn = {
        "plain base": by_base(bench, captions, steps),
        "adapters inserted": by_adapted(bench, captions, steps),
        "renderer (ceiling)": bench.small(
            render(i, random_expression(rng), random_pose(rng)) for i in identities
        ),
    }
    figures = {name: agreement(pictures, captions) for name, pictures in drawn.items()}
    figures["chance"] = shuffled(drawn["plain base"], captions)
    return figures, captioned(captions[:12], drawn["plain base"], drawn["adapters inserted"])


def captioned(captions: list[str], *pictures: np.ndarray, columns: int = 4) -> Image.Image:
    """Cells of one picture (S, S, 3) of each kind side by side, with the caption below."""
    size, line, letters = pictures[0].shape[1], 14, 6  # px: a line's height, a letter's width
    width, height = len(pictures) * size + 8, size + 4 * line
    grid = Image.new("RGB", (columns * width, -(-len(captions) // columns) * height), "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(11)
    for i, caption in enumerate(captions):
        left, top = i % columns * width, i // columns * height
        grid.paste(Image.fromarray(np.hstack([kind[i] for kind in pictures])), (left, top))
        lines = re.findall(rf".{{1,{(width - 8) // letters}}}(?:\s+|$)", caption)
        pen.multiline_text((left, top + size), "\n".join(lines), "black", font, spacing=2)
    return grid

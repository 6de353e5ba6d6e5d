"""The adapters on a user's own clips: the loss of stage 3, on Stable Diffusion 1.5 or any other base of a
release.

Every clip is one identity. It is analysed and cropped as the page does with a driver clip, its frames are
kept as latents of the base's autoencoder, and then one frame is the reference, and others give the motion and
are the truth.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import nn
from tqdm import tqdm

from hellomeme.errors import HelloMemeError
from hellomeme.face.conditions import condition_pictures, condition_tensor
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.inputs import Conditions
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.control import HMControlNet, HMV2ControlNet
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.load import INDEX, face_basis, find, load, locate
from hellomeme.releases.table import FACE_BASIS, Release
from training.clips import Clip, analysed, clip_paths, load_clip, save_clip
from training.export import export_adapters
from training.pictures import psnr
from training.stages.adapters import TARGETS, Reenactment
from training.stages.start import start_by_attending, start_by_copying

# The expression that is trained: ARKit's coefficients, which MediaPipe reads of any frame
EXPRESSION_TYPE = "drive_coeff"
PURE_NOISE = 0.5  # share of targets under pure noise: sampling starts there
LOOKS = 4  # pairs of frames that are drawn at a look
LEVELS = (100, 400, 700, 950)  # timesteps of the validation loss
BASE_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "motion")


# What training begins with


@dataclass(frozen=True)
class Start:
    """release: name of a row or a folder of adapters. base: hub id, folder or file, or the row's own. fresh:
    whether the adapters begin at random, of the row's kind, instead of as released."""

    release: str
    base: str | None = None
    fresh: bool = False

    def settle(self, folder: Path, model: dict) -> str:
        """What to load as the release. In `folder`, notes what training began with and writes fresh adapters.

        Raises HelloMemeError where the training in `folder` was begun otherwise.
        """
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        note = folder / "start.json"
        if note.exists() and (before := json.loads(note.read_text())) != chosen:
            changed = next(name for name in chosen if chosen[name] != before[name])
            raise HelloMemeError(
                f"The training in {folder} was begun with {changed} {before[changed]}, not "
                f"{chosen[changed]}: go on with that, or choose another work folder."
            )
        adapters = folder / "start"
        if self.fresh and not adapters.is_dir():
            row = find(self.release)
            unfinished = folder / "start.part"
            export_adapters(unfinished, named(row, *fresh_adapters(row, model)))
            unfinished.rename(adapters)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(chosen))
        return str(adapters) if self.fresh else self.release


def fresh_adapters(row: Release, model: dict) -> tuple[HMReferenceAdapter, list[nn.Module]]:
    """The adapters of v1 or v2 at their start, for a base with blocks of the widths `channels`.

    model: channels, heads of the reference attentions, and the width of the control nets' tokens.
    """
    if row.name not in ("v1", "v2"):
        raise HelloMemeError(
            f"Adapters can be begun anew as v1 or v2, not as {row.name}: choose one of the two."
        )
    channels, side = model["channels"], row.size // 8
    adapter = HMReferenceAdapter(
        block_out_channels=channels, num_attention_heads=model["heads"], version=row.name
    )
    start_by_copying(adapter, side)
    kind, widths = (
        (HMControlNet, channels[:3]) if row.name == "v1" else (HMV2ControlNet, [*channels[1:], channels[3]])
    )
    # v1's first map has half the latents' side, v2's the whole; the first block halves what it is given.
    scale = row.condition_size // (side if row.name == "v1" else 2 * side)
    control = kind(
        scale_factor=scale, cross_attention_dim=model["control_width"], block_out_channels=(128, *widths)
    )
    start_by_attending(control)
    return adapter, [control]


def named(row: Release, adapter: nn.Module, controls: list[nn.Module]) -> dict[str, nn.Module]:
    """The networks by the names of their folders in a release."""
    nets = [row.reference, *(net for net in row.controls if net.expression_type == EXPRESSION_TYPE)]
    return dict(zip([net.source.folder for net in nets], [adapter, *controls], strict=True))


# Training


class OwnClipsStage(Reenactment):
    """Self-reenactment within each clip. With three clips and more, one in ten is kept to validate on."""

    name = "own"
    targets = TARGETS

    def __init__(
        self,
        pipeline: HelloMemePipeline,
        release: Release,
        clips: list[Clip],
        steps: int | None = None,
        dropped: float = 0.1,
    ) -> None:
        """pipeline: the base and the adapters to begin with. steps: for pictures at a look; the release's if
        None.
        dropped: share of references that are drawn without any adapter's help, which guidance compares
        with."""
        # The release's prompt, which the page gives to every picture; the demo's is empty.
        text = pipeline.encode_prompt(release.prompt)[1:]
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        super().__init__(
            pipeline.unet, pipeline.hm_reference, nn.ModuleList(pipeline.controls), text, scheduler
        )
        self.adapter.requires_grad_(True)
        self.controls.requires_grad_(True)
        if hasattr(self.adapter, "reference_modules_down"):
            self.adapter.reference_modules_down[3].requires_grad_(False)  # the method has no use for it
        # Computes again what the way back through the base needs
        pipeline.unet.enable_gradient_checkpointing()
        self.autoencoder = pipeline.vae.requires_grad_(False)
        # Here so that it goes to the GPU with the rest
        self.text_encoder = pipeline.text_encoder.requires_grad_(False)
        self.pipeline, self.release = pipeline, release
        self.steps, self.dropped = steps or release.steps, dropped
        kept = max(1, len(clips) // 10) if len(clips) > 2 else 0
        self.clips, self.validation = clips[: len(clips) - kept], clips[len(clips) - kept :] or clips
        # As the schedule of the demo's base does
        self.ends_in_noise = bool(scheduler.alphas_cumprod[-1] < 1e-6)
        self.pictures: list[list[np.ndarray]] = []

    def _batch(self, chosen: list[tuple[Clip, int, np.ndarray]]) -> dict:
        """(clip, reference, targets (R,)) to what the loss takes, without the noise levels."""
        batch = dict(
            reference=torch.stack([clip.latents[reference] for clip, reference, _ in chosen]).float(),
            latents=torch.stack([clip.latents[targets] for clip, _, targets in chosen]).float(),
            weights=torch.ones(1),
            **self._conditions([(clip, targets) for clip, _, targets in chosen]),
        )
        if self.release.reference_control:
            own = self._conditions([(clip, [reference]) for clip, reference, _ in chosen])
            batch |= {f"reference_{name}": tensor for name, tensor in own.items()}
        return batch

    def _conditions(self, chosen: list[tuple[Clip, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """What the control nets see of (clip, frames)."""
        motions = [clip.motion.at(frames) for clip, frames in chosen]
        size = self.release.condition_size
        poses = [
            condition_tensor(motion, size, clip.shape)
            for motion, (clip, _) in zip(motions, chosen, strict=True)
        ]
        coefficients = np.stack([motion.blendshapes for motion in motions])
        return dict(poses=torch.stack(poses), coefficients=torch.from_numpy(coefficients))

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        chosen = []
        for index in rng.integers(0, len(self.clips), batch):
            clip = self.clips[index]
            reference, *others = rng.permutation(clip.usable)
            chosen.append((clip, reference, rng.choice(others, TARGETS)))
        timesteps = rng.integers(0, self.scheduler.config.num_train_timesteps, (batch, TARGETS))
        if self.ends_in_noise:  # few steps are enough there, and the first decides most
            timesteps[rng.random(timesteps.shape) < PURE_NOISE] = timesteps.max()
        keep = rng.random(batch) >= self.dropped
        return self._batch(chosen) | dict(timesteps=torch.from_numpy(timesteps), keep=torch.from_numpy(keep))

    def pairs(self) -> list[tuple[Clip, int, np.ndarray]]:
        """Frames to look at, of the validation clips in turn: each clip's first, and ever later ones as
        targets."""
        pairs = []
        for k in range(LOOKS):
            clip = self.validation[k % len(self.validation)]
            reference, *others = clip.usable
            pairs.append((clip, reference, np.array([others[(k + 1) * len(others) // (LOOKS + 1)]])))
        return pairs

    def validate(self) -> dict[str, float]:
        """The loss at a few noise levels, and PSNR of what the page would draw and of the reference left as
        it is, against the autoencoder's reconstruction of the truth."""
        device, chosen = self.empty_text.device, self.pairs()
        batch = self._batch(chosen) | dict(keep=torch.ones(len(chosen), dtype=torch.bool))
        losses = []
        for level in LEVELS:
            torch.manual_seed(level)
            batch["timesteps"] = torch.full((len(chosen), 1), level)
            losses.append(self({name: tensor.to(device) for name, tensor in batch.items()}).item())
        self.pictures = [self._drawn(*pair) for pair in chosen]
        references, _, results, truths = (np.stack(column) for column in zip(*self.pictures, strict=True))
        return dict(
            validation=np.mean(losses),
            psnr=psnr(results, truths).mean(),
            copy=psnr(references, truths).mean(),
        )

    def _drawn(self, clip: Clip, reference: int, targets: np.ndarray) -> list[np.ndarray]:
        """Reference, condition picture, result and truth, (size, size, 3) uint8 each."""
        motion, size = clip.motion.at(targets), self.release.size
        latents = clip.latents[[reference, *targets]].float()
        # (3, 2, H, W)
        decoded = (self.pipeline.decode(latents.transpose(0, 1)[None])[0] * 255).round().byte()
        before, truth = decoded.permute(1, 2, 3, 0).cpu().numpy()
        pose = condition_pictures(motion, size, clip.shape)[0]
        own, asked = (self._conditions([(clip, frames)]) for frames in ([reference], targets))
        seen = Conditions(own["poses"], own["coefficients"]) if self.release.reference_control else None
        result = self.pipeline(
            self.pipeline.prepare_reference(latents[:1], self.release.prompt, conditions=seen),
            asked["poses"],
            prompt=self.release.prompt,
            drive_coeff=asked["coefficients"],
            num_inference_steps=self.steps,
            guidance_scale=self.release.guidance,
            generator=torch.Generator().manual_seed(0),
        ).frames[0]
        return [before, pose, np.asarray(result), truth]

    def picture(self) -> Image.Image:
        """What `validate` drew, a row to a pair: reference, condition picture, result and truth."""
        return Image.fromarray(np.vstack([np.hstack(row) for row in self.pictures]))


def export(stage: OwnClipsStage, folder: Path) -> None:
    """The adapters in the layout of their release, which `--release FOLDER` takes; the base is not part of
    it, except for the demo's, which has no other place."""
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    release = stage.release
    export_adapters(unfinished, named(release, stage.adapter, list(stage.controls)))
    if release.base.is_bundled:
        for part in BASE_PARTS:
            if (release.root / part).is_dir():
                shutil.copytree(release.root / part, unfinished / part)
        if (release.root / INDEX).is_file():  # says whether the reference is seen with its own face
            shutil.copy(release.root / INDEX, unfinished / INDEX)
    if release.face_basis is not None:
        shutil.copy(release.root / release.face_basis, unfinished / FACE_BASIS)
    if folder.is_dir():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def prepare(clips: Path, start: Start, work: Path, config: dict, device: torch.device) -> OwnClipsStage:
    """The stage at its start. What is wrong with clips is found before the base is loaded; latents are kept
    in `work`.

    config: `clips` (rate, frames, steps), and `model` as `fresh_adapters` takes it.
    """
    paths, wanted = clip_paths(clips), config["clips"]
    row = find(start.release)
    if EXPRESSION_TYPE not in {net.expression_type for net in row.controls}:
        raise HelloMemeError(
            f"{start.release} has no control net for {EXPRESSION_TYPE}: choose another release."
        )
    if any(net.slot == "hm_control_proj" for net in row.controls):
        raise HelloMemeError(
            f"{start.release} has control nets in two parts, which are not trained here: choose v1, v2 or v3."
        )
    basis = face_basis(row)
    kept = {path: work / "clips" / f"{_mark(path, row, start, wanted)}.safetensors" for path in paths}
    with FaceAnalyzer() as analyzer:
        new = [
            analysed(path, row, analyzer, wanted["rate"], wanted["frames"], basis)
            for path in tqdm(paths, desc="reading", unit="clip")
            if not kept[path].exists()
        ]
    name = start.settle(work / OwnClipsStage.name, config["model"])
    row = replace(find(name), face_parts_encoder=None)  # trained with coefficients alone
    # A row without a prompt needs no second text encoder: the base's own reads all words in training
    unworded = replace(row, prompt="")
    pipeline = load(unworded, start.base, "cpu", torch.float32, expression_type=EXPRESSION_TYPE)[0]
    pipeline.vae.to(device)
    for clip in tqdm(new, desc="encoding", unit="clip"):
        save_clip(clip.encoded(pipeline, row.size), kept[clip.path])
    return OwnClipsStage(
        pipeline, row, [load_clip(path.name, kept[path], basis) for path in paths], wanted["steps"]
    )


def _mark(path: Path, row: Release, start: Start, wanted: dict) -> str:
    """A name for the latents of a clip that changes with whatever they depend on."""
    file = path.stat()
    parts = [
        path.name,
        file.st_size,
        file.st_mtime_ns,
        row.size,
        row.crop_scale,
        start.base or locate(row, row.base),
    ]
    if row.face_basis is not None:
        parts.append(hashlib.sha256((row.root / row.face_basis).read_bytes()).hexdigest())
    return hashlib.sha256(json.dumps([*parts, wanted["rate"], wanted["frames"]]).encode()).hexdigest()[:16]

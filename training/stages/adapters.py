"""Stage 3: with the base frozen, the reference adapter and the control nets, by self-reenactment.

Two frames of one identity: the reference gives the appearance, the other frame gives pose and expression and
is the truth. The base UNet takes part in both passes and is never changed.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from PIL import Image
from torch import nn

from hellomeme.face.arkit import INDEX
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.drawing import FaceBasis
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.autoencoder import PatchAutoencoder
from hellomeme.models.unet import HMDenoisingNet, HMReferenceNet
from training.dataset import Frames, is_cast
from training.driving import SOURCES, DrivenFrames
from training.loop import Stage
from training.pictures import attention_weights, psnr, to_images
from training.readings import correlation, read_back
from training.stages.base import make_scheduler
from training.stages.latent_error import LatentError
from training.stages.reader import Reader

TARGETS = 3  # frames that share one pass of the reference: of the four of an identity, the others
PURE = 999  # the timestep of pure noise, where sampling starts
FACE_WEIGHT = 3.0  # of eyes and mouth in the loss: they are what is to follow, on a hundredth of the frame
HELD_OUT = 4  # pairs of frames of each of the gallery's characters that the adapters are not trained on
READ_WEIGHT = 0.3  # of the difference between what is read of a prediction and of the truth
# Most frames have little of it, and without plenty it is not learnt.
RARE = (
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "jawOpen",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthPucker",
    "eyeLookOutLeft",
    "eyeLookInLeft",
    "browInnerUp",
    "browDownLeft",
)


def frame_weights(blendshapes: np.ndarray) -> np.ndarray:
    """(N, 51) coefficients to (N,) how often to draw a frame: 1 for a face at rest, up to some 10.

    One eye closed alone counts as one more of RARE.
    """
    wink = np.abs(blendshapes[:, INDEX["eyeBlinkLeft"]] - blendshapes[:, INDEX["eyeBlinkRight"]])
    rare = np.column_stack([blendshapes[:, [INDEX[name] for name in RARE]], wink])
    return 1 + 2 * (rare / rare.mean(0).clip(min=1e-3)).mean(1)


class Reenactment(Stage):
    """The method's loss: frames under noise, given another frame of the same identity and the frames' own
    motion.

    The base UNet takes part in both passes, with gradients through it, and is frozen. What the scheduler's
    `prediction_type` says is what it predicts: the velocity, or else the noise.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        adapter: HMReferenceAdapter,
        controls: nn.ModuleList,
        empty_text: torch.Tensor,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__()
        unet.requires_grad_(False)
        self.adapter, self.controls = adapter, controls
        self.reference_net, self.denoising_net = HMReferenceNet(unet), HMDenoisingNet(unet, adapter)
        self.register_buffer("empty_text", empty_text, persistent=False)  # (1, N, D)
        self.scheduler = scheduler

    def control(self, poses: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        return {key: value for net in self.controls for key, value in net(poses, coefficients).items()}

    def conditioned(self, batch: dict) -> tuple[dict, dict]:
        """The prepared reference and the control maps of a batch, with what guidance sees as the negative
        where `keep` (B,) says so: an empty reference, no pose, no expression.

        A batch with `reference_poses` and `reference_coefficients` has the reference seen with control maps
        of its own (`reference_control` of a release).
        """
        keep = batch["keep"]

        def control(of: str = "") -> dict[str, torch.Tensor]:
            poses = torch.where(keep[:, None, None, None, None], batch[f"{of}poses"], -1.0)
            return self.control(poses, batch[f"{of}coefficients"] * keep[:, None, None])

        own = control("reference_") if "reference_poses" in batch else None
        return self.prepare(batch["reference"] * keep[:, None, None, None], own), control()

    def forward(self, batch: dict) -> torch.Tensor:
        latents, timesteps = batch["latents"], batch["timesteps"]  # (B, R, C, h, w), (B, R)
        noise = torch.randn_like(latents)
        noisy, velocity = (
            function(latents.flatten(0, 1), noise.flatten(0, 1), timesteps.flatten())
            .view_as(latents)
            .transpose(1, 2)
            for function in (self.scheduler.add_noise, self.scheduler.get_velocity)
        )
        wanted = (
            velocity if self.scheduler.config.prediction_type == "v_prediction" else noise.transpose(1, 2)
        )
        predicted = self.predict(noisy, timesteps, *self.conditioned(batch))
        return (((predicted - wanted) ** 2) * batch["weights"]).mean()

    def prepare(self, reference: torch.Tensor, own: dict[str, torch.Tensor] | None = None) -> dict:
        """The reference's keys and values. own: control maps of its own pose and expression, or None."""
        return self.adapter.prepare(self.features(reference, own))

    def features(
        self, reference: torch.Tensor, own: dict[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        return self.reference_net(reference, self.empty_text.expand(len(reference), -1, -1), own)

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor | int, prepared: dict, control: dict
    ) -> torch.Tensor:
        text = self.empty_text.expand(len(noisy), -1, -1)
        return self.denoising_net(noisy, timesteps, text, prepared, control)


def network_inputs(
    driven: DrivenFrames,
    latents: torch.Tensor,
    references: np.ndarray,
    targets: np.ndarray,
    sources: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """What the networks see of references (B,) and of targets (B, R), by index; nothing is dropped.

    latents: (N, C, h, w) of the frames. sources, rng: see `DrivenFrames.conditions`.
    """
    own = {f"reference_{k}": v for k, v in driven.conditions(references, references[:, None]).items()}
    conditions = driven.conditions(references, targets, sources, rng)
    keep = torch.ones(len(references), dtype=torch.bool)
    return dict(reference=latents[references].float(), keep=keep, **own, **conditions)


def with_frames_held_out(frames: Frames) -> tuple[list[np.ndarray], np.ndarray]:
    """Indexes by identity of the frames to train on; and, of the gallery's characters, pairs (N, 2) of
    frames that are kept for the log: the last ones, a pair for every 32 frames, up to HELD_OUT pairs. Base,
    reader and autoencoder are not kept from them."""
    groups, pairs = frames.by_identity(), [np.empty((0, 2), int)]
    for i, group in enumerate(groups):
        held = 2 * min(HELD_OUT, len(group) // 32)
        if held and is_cast(int(frames.identity[group[0]])):
            groups[i], last = np.split(group, [-held])
            pairs.append(last.reshape(-1, 2))
    return groups, np.concatenate(pairs)


class AdapterStage(Reenactment):
    """The error of frames as one step from pure noise draws them.

    Conditions are another frame of the same identity, and the frames' motion with the errors of drivers (see
    `training.driving`).
    """

    name = "adapters"
    targets = TARGETS

    def __init__(
        self,
        unet: UNet2DConditionModel,
        adapter: HMReferenceAdapter,
        controls: nn.ModuleList,
        empty_text: torch.Tensor,
        autoencoder: PatchAutoencoder,
        frames: Frames,
        latents: torch.Tensor,
        validation: Frames,
        validation_latents: torch.Tensor,
        basis: FaceBasis,
        condition_size: int,
        dropped: float = 0.05,
        cast_share: float = 0.5,
        reader: Reader | None = None,
    ) -> None:
        """basis, condition_size (px): of the condition pictures. dropped: share of references that are drawn
        without conditions. cast_share: share of references that are characters of the gallery. reader: of
        these latents, trained; without one, nothing but the latents themselves is compared."""
        super().__init__(unet, adapter, controls, empty_text, make_scheduler())
        self.reader = None if reader is None else reader.requires_grad_(False)
        self.autoencoder = autoencoder.requires_grad_(False)
        self.frames, self.latents = frames, latents
        self.validation, self.validation_latents = validation, validation_latents
        self.driven, self.driven_validation = (
            DrivenFrames(f, basis, condition_size) for f in (frames, validation)
        )
        self.groups, self.held_out = with_frames_held_out(frames)
        # of each group, whether it is one of the gallery's characters
        self.is_cast = np.array([is_cast(int(frames.identity[group[0]])) for group in self.groups])
        self.frame_weights = frame_weights(frames.blendshapes)
        self.group_weights = self._group_weights(cast_share)
        self.dropped = dropped
        self.latent_error = LatentError(latents)
        side = latents.shape[-1]
        self.weights = attention_weights(frames.landmarks, frames.found, side, FACE_WEIGHT).astype(np.float16)

    def _group_weights(self, cast_share: float) -> np.ndarray:
        """How often each identity is chosen, summing to 1: more often where more is rare."""
        weights = np.array([self.frame_weights[group].sum() for group in self.groups])
        for part, share in ((self.is_cast, cast_share), (~self.is_cast, 1 - cast_share)):
            weights[part] *= share / max(weights[part].sum(), 1e-9)
        return weights / weights.sum()

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        references, targets = self.choose(rng, batch)
        sources = rng.choice(SOURCES, targets.shape)
        inputs = network_inputs(self.driven, self.latents, references, targets, sources, rng)
        return (
            inputs
            | self.described(references, targets)
            | dict(
                latents=self.latents[targets].float().transpose(1, 2),  # (B, C, R, h, w)
                weights=torch.from_numpy(self.weights[targets]).float()[:, None],
                keep=torch.from_numpy(rng.random(batch) >= self.dropped),
            )
        )

    def described(self, references: np.ndarray, targets: np.ndarray) -> dict[str, torch.Tensor]:
        """What else a batch says of references (B,) and targets (B, R), by index."""
        return {}

    def choose(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Indexes of references (B,) and, of each one's identity, of targets (B, R)."""
        references, targets = [], []
        for group in rng.choice(len(self.groups), batch, p=self.group_weights):
            members = self.groups[group]
            reference = rng.choice(members)
            others = members[members != reference]
            weights = self.frame_weights[others]
            references.append(reference)
            repeated = len(others) < TARGETS
            targets.append(rng.choice(others, TARGETS, replace=repeated, p=weights / weights.sum()))
        return np.array(references), np.stack(targets)

    def forward(self, batch: dict) -> torch.Tensor:
        return self.error(self.one_step(batch), batch["latents"], batch)

    def one_step(self, batch: dict, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Clean latents (B, C, R, h, w) as one step from pure noise predicts them.

        batch: what `network_inputs` returned. noise: (B, C, R, h, w), drawn if not given.
        """
        if noise is None:
            frames = batch["coefficients"].shape[1]
            noise = torch.randn_like(batch["reference"][:, :, None].expand(-1, -1, frames, -1, -1))
        # The schedule ends in pure noise, alpha = 0 and sigma = 1: there the velocity, alpha noise - sigma
        # clean, is -clean.
        return -self.predict(noise, PURE, *self.conditioned(batch)).float()

    def error(self, clean: torch.Tensor, truth: torch.Tensor, batch: dict) -> torch.Tensor:
        loss = (self.latent_error(clean, truth) * batch["weights"]).mean()
        if self.reader is not None:  # not where the conditions were dropped
            read = self.reader.difference(*(x.transpose(1, 2).flatten(0, 1) for x in (clean, truth)))
            loss = loss + READ_WEIGHT * (read * batch["keep"].repeat_interleave(truth.shape[2])).mean()
        return loss

    def reenact(
        self, driven: DrivenFrames, latents: torch.Tensor, pairs: np.ndarray, steps: int = 1, seed: int = 0
    ) -> np.ndarray:
        """Pairs (N, 2) of (reference, driver) indexes to (N, H, W, 3) uint8 pictures, sampled without
        guidance."""
        device = self.empty_text.device
        generator = torch.Generator().manual_seed(seed)
        scheduler = make_scheduler()
        scheduler.set_timesteps(steps)
        pictures = []
        for part in np.array_split(pairs, -(-len(pairs) // 32)):
            inputs = network_inputs(driven, latents, part[:, 0], part[:, 1:])
            prepared, control = self.conditioned({k: v.to(device) for k, v in inputs.items()})
            sample = torch.randn((len(part), *latents.shape[1:]), generator=generator).to(device)[:, :, None]
            for timestep in scheduler.timesteps:
                velocity = self.predict(sample, timestep.to(device), prepared, control)
                sample = scheduler.step(velocity, timestep, sample).prev_sample
            decoded = self.autoencoder.decode(sample[:, :, 0] / self.autoencoder.config.scaling_factor).sample
            pictures.append(to_images(decoded))
        return np.concatenate(pictures)

    def pairs(self, count: int) -> np.ndarray:
        """The first two usable frames of each of the first `count` validation identities, as
        (reference, driver)."""
        return np.array([group[:2] for group in self.validation.by_identity()[:count]])

    def validate(self) -> dict[str, float]:
        pairs = self.pairs(48)
        truth = self.validation.images[pairs[:, 1]]
        pictures = self.reenact(self.driven_validation, self.validation_latents, pairs)
        figures = {
            "copy": psnr(self.validation.images[pairs[:, 0]], truth).mean(),
            "psnr": psnr(pictures, truth).mean(),
        }
        return figures | self.errors(pairs) | self.followed(pictures, pairs[:, 1])

    def errors(self, pairs: np.ndarray) -> dict[str, float]:
        """Mean squared error of the latents that one step draws.

        error: of validation pairs (N, 2). error_trained: of as many random pairs that are trained on, without
        the gallery's characters. error_cast: of those characters in frames held out, and error_cast_trained
        in as many that are trained on: far below, it says that there are too few frames.
        """
        some = np.random.default_rng(0)

        def trained(chosen: np.ndarray, count: int) -> np.ndarray:
            groups = some.choice(np.flatnonzero(chosen), count) if chosen.any() else []
            return np.array([some.choice(self.groups[i], 2, replace=False) for i in groups]).reshape(-1, 2)

        measured = {
            "error": (self.driven_validation, self.validation_latents, pairs),
            "error_trained": (self.driven, self.latents, trained(~self.is_cast, len(pairs))),
            "error_cast": (self.driven, self.latents, self.held_out),
            "error_cast_trained": (self.driven, self.latents, trained(self.is_cast, len(self.held_out))),
        }
        return {name: self._error(*of) for name, of in measured.items() if len(of[2])}

    def _error(self, driven: DrivenFrames, latents: torch.Tensor, pairs: np.ndarray) -> float:
        device, generator = self.empty_text.device, torch.Generator().manual_seed(0)
        errors = []
        for part in np.array_split(pairs, -(-len(pairs) // 32)):
            batch = network_inputs(driven, latents, part[:, 0], part[:, 1:])
            truth = latents[part[:, 1:]].float().transpose(1, 2)
            noise = torch.randn(truth.shape, generator=generator).to(device)
            clean = self.one_step({k: v.to(device) for k, v in batch.items()}, noise)
            errors += (clean - truth.to(device)).square().mean((1, 2, 3, 4)).tolist()
        return float(np.mean(errors))

    def followed(self, pictures: np.ndarray, drivers: np.ndarray) -> dict[str, float]:
        """Share of pictures with a face; what of them follows the validation frames `drivers`, as
        correlations."""
        with FaceAnalyzer() as analyzer:
            faces = read_back(pictures, analyzer)
        seen = [i for i, face in enumerate(faces) if face is not None]
        figures = {"faces": len(seen) / len(faces)} | dict.fromkeys(("jaw", "blink", "smile", "gaze"), 0.0)
        if len(seen) > 2:
            ours = np.stack([faces[i].blendshapes for i in seen])
            theirs = self.validation.blendshapes[drivers[seen]]
            for name, part in (
                ("jaw", "jawOpen"),
                ("blink", "eyeBlinkLeft"),
                ("smile", "mouthSmileLeft"),
                ("gaze", "eyeLookOutLeft"),
            ):
                figures[name] = correlation(ours[:, INDEX[part]], theirs[:, INDEX[part]])
        return figures

    def picture(self) -> Image.Image:
        """Rows of: reference, condition picture, result, truth."""
        pairs = self.pairs(12)
        size = self.validation.images.shape[1]
        poses = self.driven_validation.conditions(pairs[:, 0], pairs[:, 1:])["poses"][:, :, 0]
        poses = to_images(torch.nn.functional.interpolate(poses, size=(size, size)))
        results = self.reenact(self.driven_validation, self.validation_latents, pairs)
        rows = [self.validation.images[pairs[:, 0]], poses, results, self.validation.images[pairs[:, 1]]]
        return Image.fromarray(np.vstack([np.hstack(row) for row in rows]))

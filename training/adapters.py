"""Stage 3: with the base frozen, the reference adapter and the control nets, by self-reenactment.

Two frames of one identity: the reference gives the appearance, the other frame gives pose and expression and
is the truth. The base UNet takes part in both passes and is never changed.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from hellomeme.face.arkit import INDEX
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.unet import HMDenoisingNet, HMReferenceNet
from training.autoencoder import attention_weights, psnr, to_images, to_tensor
from training.base import make_scheduler
from training.dataset import Frames
from training.evaluate import correlation, read_back
from training.loop import Stage
from training.reader import Reader

TARGETS = 3  # frames that share one pass of the reference
COMMANDED = 0.5  # share of identities whose expressions are given as commanded instead of as detected
PURE = 999  # the timestep of pure noise: sampling starts there, and with few steps it is decided there
PURE_NOISE = 0.5  # share of targets at it, where a target sees a single noise level (`Reenactment`)
OWN = 0.8  # share of second steps that see what the first one drew under noise, not the truth
FACE_WEIGHT = 8.0  # of eyes and mouth in the loss: they are what is to follow, on a hundredth of the frame
READ_WEIGHT = 0.3  # of what a reader of latents makes of predictions, against truth
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
)


def frame_weights(blendshapes: np.ndarray) -> np.ndarray:
    """(N, 51) coefficients to (N,) how often to draw a frame: 1 for a face at rest, up to some 10."""
    rare = blendshapes[:, [INDEX[name] for name in RARE]]
    return 1 + 2 * (rare / rare.mean(0).clip(min=1e-3)).mean(1)


def start_by_copying(adapter: HMReferenceAdapter, side: int) -> None:
    """Begin with every position looking at the same position of the reference, and with no effect on the
    base.

    In the knitted row (hidden | reference) the reference's position i is numbered n + i. The table of
    positions is made of sines and cosines, so that shift is a rotation: keys that undo it meet the query of
    position i. From a random start, finding this takes most of a short training.

    side: height and width of the latents in px; the map at a place is smaller by its level.
    """
    levels = len(adapter.config.block_out_channels)
    places = {f"down_{i}": min(i + 1, levels - 1) for i in range(levels)} | {"mid": levels - 1}
    places |= {f"up_{i}": levels - 1 - i for i in range(levels)}
    for place, level in places.items():
        module = adapter.module_at(place)
        if module is None:
            continue
        n, channels = side >> level, module.norm.normalized_shape[0]
        table = module.pos_embed.pe[0, :, :].double()
        # The rotation by n positions, from the table itself: pe[n] = rotation @ pe[0], and pe[0] is sin 0,
        # cos 0.
        sine, cosine = table[n, 0::2], table[n, 1::2]
        back = torch.zeros(channels, channels, dtype=torch.float64)
        even, odd = torch.arange(0, channels, 2), torch.arange(1, channels, 2)
        back[even, even], back[even, odd], back[odd, even], back[odd, odd] = cosine, -sine, sine, cosine
        for attention in (module.attn1, module.attn2):
            nn.init.orthogonal_(attention.to_q.weight, gain=2.5)
            attention.to_k.weight.data.copy_(attention.to_q.weight.double() @ back)
        nn.init.zeros_(module.proj.weight)
        nn.init.zeros_(module.proj.bias)


def start_by_listening(net: nn.Module) -> None:
    """Begin with control maps that depend on pose and expression about equally.

    A knitted cross attention has no residual connection: what it is told passes through the choice of tokens
    alone.
    With torch's own start every position chooses all tokens evenly, and the maps are the same for every
    driver, to four digits; a short training never gets beyond that. So queries and keys begin sharp, and the
    fast sines of the coefficients (a hundredth of jawOpen turns the fastest by 5 rad) begin quiet.
    """
    for block in net.blocks_down:
        for attention in (block.attn1, block.attn2):
            for layer, gain in (
                (attention.to_q, 4.0),
                (attention.to_k, 4.0),
                (attention.to_v, 1.0),
                (attention.to_out[0], 1.0),
            ):
                nn.init.orthogonal_(layer.weight, gain)
        for layer in (block.ff.net[0].proj, block.ff.net[2], block.proj):
            layer.weight.data.mul_(1.5)
    half = net.config.cross_attention_dim // 2
    frequencies = 10000.0 ** (-torch.arange(half) / half)  # of the sinusoidal embedding, cosines first
    quiet = (0.01 / frequencies).clamp(max=1.0)
    first, second = net.exp_proj.linear_1, net.exp_proj.linear_2
    first.weight.data.mul_(4.0 * torch.cat([quiet, quiet]))
    second.weight.data.mul_(4.0)


class Reenactment(Stage):
    """The method's loss: frames under noise, given another frame of the same identity and the frames' own
    motion.

    The base UNet takes part in both passes, with gradients through it, and is frozen. What the scheduler's
    `prediction_type` says is what it predicts: the velocity, or else the noise.
    """

    def __init__(
        self, unet, adapter: HMReferenceAdapter, controls: nn.ModuleList, empty_text: torch.Tensor, scheduler
    ):
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
        where `keep` (B,) says so: an empty reference, no pose, no expression."""
        keep = batch["keep"]
        reference = batch["reference"] * keep[:, None, None, None]
        poses = torch.where(keep[:, None, None, None, None], batch["poses"], -1.0)
        coefficients = batch["coefficients"] * keep[:, None, None]
        return self.prepare(reference), self.control(poses, coefficients)

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

    def prepare(self, reference: torch.Tensor) -> dict:
        return self.adapter.prepare(self.features(reference))

    @torch.no_grad()
    def features(self, reference: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.reference_net(reference, self.empty_text.expand(len(reference), -1, -1))

    def predict(self, noisy, timesteps, prepared: dict, control: dict) -> torch.Tensor:
        text = self.empty_text.expand(len(noisy), -1, -1)
        return self.denoising_net(noisy, timesteps, text, prepared, control)


class AdapterStage(Reenactment):
    """The error of frames as a few steps draw them, given another frame of the same identity and the frames'
    motion.

    The first step sees pure noise. What it draws is put under noise again for the second, which therefore
    learns to mend it; trained on noisy truths only, a model takes its own blur for the truth, and more steps
    look worse.
    """

    name = "adapters"

    def __init__(
        self,
        unet,
        adapter: HMReferenceAdapter,
        controls: nn.ModuleList,
        empty_text: torch.Tensor,
        autoencoder,
        frames: Frames,
        latents: torch.Tensor,
        validation: Frames,
        validation_latents: torch.Tensor,
        dropped: float = 0.08,
        reader: Reader | None = None,
    ):
        """reader: of these latents, trained; without one, nothing but the latents themselves is compared."""
        super().__init__(unet, adapter, controls, empty_text, make_scheduler())
        self.reader = None if reader is None else reader.requires_grad_(False)
        self.autoencoder = autoencoder.requires_grad_(False)
        self.frames, self.latents = frames, latents
        self.validation, self.validation_latents = validation, validation_latents
        self.groups = frames.by_identity()
        self.frame_weights = frame_weights(frames.blendshapes)
        self.group_weights = np.array([self.frame_weights[group].sum() for group in self.groups])
        self.group_weights /= self.group_weights.sum()
        self.calibrated = frames.calibrated()
        self.dropped = dropped
        side = latents.shape[-1]
        self.weights = attention_weights(frames.landmarks, frames.found, side, FACE_WEIGHT).astype(np.float16)

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        references, targets = [], []
        for group in rng.choice(len(self.groups), batch, p=self.group_weights):
            reference, *others = rng.permutation(self.groups[group])
            references.append(reference)
            weights = self.frame_weights[others]
            targets.append(rng.choice(others, TARGETS, p=weights / weights.sum()))
        targets = np.stack(targets)  # (B, R)
        told, read = self.calibrated[targets], self.frames.blendshapes[targets]
        # They lean to high noise: at low noise the frozen base knows its trade without the adapters.
        timesteps = (999 * np.sqrt(rng.random(targets.shape))).astype(np.int64)
        return dict(
            reference=self.latents[references].float(),
            latents=self.latents[targets].float(),
            poses=self.conditions(self.frames, targets)["poses"],
            coefficients=torch.from_numpy(np.where(rng.random((batch, 1, 1)) < COMMANDED, told, read)),
            weights=torch.from_numpy(self.weights[targets]).float()[:, None],
            timesteps=torch.from_numpy(timesteps),
            own=torch.from_numpy(rng.random(targets.shape) < OWN),
            keep=torch.from_numpy(rng.random(batch) >= self.dropped),
        )

    def forward(self, batch: dict) -> torch.Tensor:
        latents, timesteps = batch["latents"].transpose(1, 2), batch["timesteps"]  # (B, C, R, h, w), (B, R)
        conditioned, noise = self.conditioned(batch), torch.randn_like(latents)
        first = self.cleaned(noise, torch.full_like(timesteps, PURE), *conditioned)
        start = torch.where(batch["own"][:, None, :, None, None], first.detach(), latents)
        second = self.cleaned(self.scheduled("add_noise", start, noise, timesteps), timesteps, *conditioned)
        return sum(self.error(clean, latents, batch) for clean in (first, second)) / 2

    def scheduled(self, function: str, *tensors: torch.Tensor) -> torch.Tensor:
        """`add_noise` or `get_velocity` of the scheduler on (B, C, R, h, w), at timesteps (B, R)."""
        *latents, timesteps = tensors
        result = getattr(self.scheduler, function)(
            *(x.transpose(1, 2).flatten(0, 1) for x in latents), timesteps.flatten()
        )
        return result.unflatten(0, timesteps.shape).transpose(1, 2)

    def cleaned(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, prepared: dict, control: dict
    ) -> torch.Tensor:
        """Clean latents (B, C, R, h, w) as predicted from noisy ones at timesteps (B, R)."""
        # velocity = alpha noise - sigma clean and noisy = alpha clean + sigma noise: a rotation, which the
        # same function turns back, as alpha noisy - sigma velocity = clean.
        # The schedule is not for bfloat16
        velocity = self.predict(noisy, timesteps, prepared, control).float()
        return self.scheduled("get_velocity", velocity, noisy, timesteps)

    def error(self, clean: torch.Tensor, truth: torch.Tensor, batch: dict) -> torch.Tensor:
        loss = ((clean - truth).square() * batch["weights"]).mean()
        if self.reader is not None:  # nothing is to be read where nothing was told
            read = self.reader.difference(*(x.transpose(1, 2).flatten(0, 1) for x in (clean, truth)))
            loss = loss + READ_WEIGHT * (read * batch["keep"].repeat_interleave(truth.shape[2])).mean()
        return loss

    @staticmethod
    def conditions(frames: Frames, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """Motion of the frames `chosen` (B, R): pose pictures (B, 3, R, S, S) in [-1, 1], coefficients
        (B, R, 51)."""
        poses = to_tensor(frames.poses[chosen.ravel()]).unflatten(0, chosen.shape).transpose(1, 2)
        return dict(poses=poses, coefficients=torch.from_numpy(frames.blendshapes[chosen]))

    def reenact(
        self, frames: Frames, latents: torch.Tensor, pairs: np.ndarray, steps: int, seed: int = 0
    ) -> np.ndarray:
        """Pairs (N, 2) of (reference, driver) indexes to (N, H, W, 3) uint8 pictures, sampled without
        guidance."""
        device = self.empty_text.device
        generator = torch.Generator().manual_seed(seed)
        scheduler = make_scheduler()
        scheduler.set_timesteps(steps)
        pictures = []
        for part in np.array_split(pairs, -(-len(pairs) // 32)):
            motion = {k: v.to(device) for k, v in self.conditions(frames, part[:, 1:]).items()}
            prepared, control = self.prepare(latents[part[:, 0]].float().to(device)), self.control(**motion)
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
        figures = {"copy": psnr(self.validation.images[pairs[:, 0]], truth).mean()}
        for steps in (1, 4):
            pictures = self.reenact(self.validation, self.validation_latents, pairs, steps)
            figures[f"psnr_{steps}"] = psnr(pictures, truth).mean()
            if steps == 1:
                figures |= self.followed(pictures, pairs[:, 1])
        return figures

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
        """Rows of: reference, pose picture, result in 1 step, result in 4 steps, truth."""
        pairs = self.pairs(12)
        size = self.validation.images.shape[1]
        tile = size // self.validation.poses.shape[1]
        poses = self.validation.poses[pairs[:, 1]].repeat(tile, axis=1).repeat(tile, axis=2)
        results = [self.reenact(self.validation, self.validation_latents, pairs, steps) for steps in (1, 4)]
        rows = [self.validation.images[pairs[:, 0]], poses, *results, self.validation.images[pairs[:, 1]]]
        return Image.fromarray(np.vstack([np.hstack(row) for row in rows]))

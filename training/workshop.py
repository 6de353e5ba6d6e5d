"""A work folder of training: what lies there, and the stages that are built from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import MotionAdapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from hellomeme.errors import HelloMemeError
from hellomeme.face.drawing import FaceBasis
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.autoencoder import PatchAutoencoder
from hellomeme.models.control import HMControlNet, HMV2ControlNet
from hellomeme.models.unet import HMReferenceNet
from hellomeme.releases.expressions import FILE as MEASURED
from hellomeme.releases.table import FACE_BASIS
from training import dataset
from training.export import ALONE, export_adapters, export_base
from training.face_basis import errors, fit
from training.loop import load_averaged
from training.stages.adapters import AdapterStage, network_inputs
from training.stages.autoencoder import AutoencoderStage, encode_all, scaling_factor
from training.stages.base import BaseStage, make_scheduler, make_unet, tokenize
from training.stages.decoder import VALIDATED, DecoderStage, drawings, drawn_latents
from training.stages.motion_module import MotionStage, make_motion_adapter
from training.stages.reader import Reader, ReaderStage
from training.stages.start import scale_to_features, start_by_attending, start_by_copying
from training.stages.text import make_text_encoder, make_tokenizer
from training.stages.together import TogetherStage

TRAINED_ON = ("train", "cast")  # splits
AUTOENCODER_FRAMES = 24_000  # it is trained on so many at most: their pictures are held in memory
MEASURED_FRAMES = 16  # of which the spread of features is measured


@dataclass
class Workshop:
    """A work folder and its configuration: builds the stages in order, each from what lies on disk."""

    folder: Path
    config: dict

    def splits(self, stage: str) -> dict[str, tuple[int, int]]:
        """The splits that the stage `data` or `clips` renders: name -> (identities, frames of each)."""
        data = self.config["data"]
        if stage == "data":
            return {
                "train": (data["identities"], data["frames"]),
                "validation": (data["validation_identities"], data["frames"]),
                "cast": (data["cast"], data["cast_frames"]),
            }
        return {
            "clips": (data["clips"], data["clip_frames"]),
            "validation_clips": (data["validation_clips"], data["clip_frames"]),
        }

    def shards(self, split: str, images: bool = True) -> Iterator[dataset.Frames]:
        """The frames of a split, a file at a time: pictures are large. See `dataset.shards`."""
        identities, frames = self.sizes(split)
        size = self.config["data"]["size"]
        return dataset.shards(self.folder / "data", split, identities, frames, size, images)

    def frames(self, split: str, images: bool = True) -> dataset.Frames:
        return dataset.concatenate(list(self.shards(split, images)))

    def sizes(self, split: str) -> tuple[int, int]:
        """Identities of a split, and frames of each."""
        return (self.splits("data") | self.splits("clips"))[split]

    def render(self, stage: str, processes: int) -> None:
        for split, (identities, frames) in self.splits(stage).items():
            dataset.build(
                self.folder / "data", split, identities, frames, self.config["data"]["size"], processes
            )

    @cached_property
    def train_frames(self) -> dataset.Frames:
        """Frames of many identities and of the gallery's cast, without their pictures."""
        return dataset.concatenate([self.frames(split, images=False) for split in TRAINED_ON])

    @cached_property
    def validation_frames(self) -> dataset.Frames:
        return self.frames("validation")

    @property
    def side(self) -> int:
        return self.config["data"]["size"] // 8

    def new_autoencoder(self) -> PatchAutoencoder:
        model, data = self.config["model"], self.config["data"]
        return PatchAutoencoder(
            latent_channels=model["latent_channels"], sample_size=data["size"], **model["autoencoder"]
        )

    def autoencoder_stage(self) -> AutoencoderStage:
        count = len(self.train_frames)
        some = np.random.default_rng(0).choice(count, min(count, AUTOENCODER_FRAMES), replace=False)
        frames = self.chosen_frames(np.sort(some))
        return AutoencoderStage(self.new_autoencoder(), frames, self.validation_frames)

    def decoder_stage(self) -> DecoderStage:
        """Trained on what the adapters draw, or the stage `together` where it was not handed over yet."""
        name = "adapters" if (self.folder / "adapters" / "averaged.safetensors").exists() else "together"
        if name == "adapters":
            self.check_adapters()
        adapters = load_averaged(getattr(self, f"{name}_stage")(), self.folder / name).eval()
        adapters.to(PartialState().device)
        indexes, latents = self.drawings(adapters, name)
        frames = self.chosen_frames(indexes)
        references, targets = adapters.pairs(VALIDATED).T
        inputs = network_inputs(
            adapters.driven_validation, adapters.validation_latents, references, targets[:, None]
        )
        drawn, truth = drawn_latents(adapters, inputs), self.validation_frames.only(targets)
        return DecoderStage(adapters.autoencoder, latents, frames, drawn, truth)

    def drawings(self, adapters: AdapterStage, name: str) -> tuple[np.ndarray, torch.Tensor]:
        """Sorted indexes of frames of training, and what the trained stage `name` draws of them.

        Made once for the weights and the frames on disk.
        """
        made_of = f"{self.fingerprint(name)}_{len(self.train_frames)}"
        path = self.folder / "drawings" / f"{made_of}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            indexes, latents = drawings(adapters, self.config["decoder_drawings"])
            unfinished = path.with_suffix(".part")
            save_file({"indexes": torch.from_numpy(indexes), "latents": latents}, unfinished)
            unfinished.replace(path)
        made = load_file(path)
        order = made["indexes"].argsort()
        return made["indexes"][order].numpy(), made["latents"][order]

    def chosen_frames(self, indexes: np.ndarray) -> dataset.Frames:
        """Frames of training by their sorted indexes."""
        parts, first = [], 0
        for split in TRAINED_ON:
            for frames in self.shards(split):
                own = indexes[(indexes >= first) & (indexes < first + len(frames))]
                parts.append(frames.only(own - first))
                first += len(frames)
        return dataset.concatenate(parts)

    def fingerprint(self, stage: str) -> str:
        """Of the weights of a trained stage on disk."""
        weights = (self.folder / stage / "averaged.safetensors").read_bytes()
        return hashlib.sha256(weights).hexdigest()[:12]

    def finished_autoencoder(self) -> PatchAutoencoder:
        """The autoencoder with its scaling factor, and with the longer trained decoder if there is one."""
        autoencoder = self.new_autoencoder()
        for stage in ("autoencoder", "decoder"):
            weights = self.folder / stage / "averaged.safetensors"
            if weights.exists():
                tensors, prefix = load_file(weights), "autoencoder."
                own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                autoencoder.load_state_dict(own, strict=stage == "autoencoder")
        autoencoder.register_to_config(scaling_factor=self.scaling_factor)
        return autoencoder.eval()

    def unscaled_latents(self, split: str) -> torch.Tensor:
        """Latents (N, C, h, w), float16, of a split; made once for the autoencoder that lies on disk."""
        identities, frames = self.sizes(split)
        name = f"{split}_{identities}x{frames}.safetensors"
        path = self.folder / "latents" / self.fingerprint("autoencoder") / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            stage = load_averaged(
                AutoencoderStage(self.new_autoencoder(), None, None), self.folder / "autoencoder"
            )
            autoencoder = stage.autoencoder.eval().to(PartialState().device)
            unfinished = path.with_suffix(".part")
            latents = torch.cat([encode_all(autoencoder, part.images) for part in self.shards(split)])
            save_file({"latents": latents}, unfinished)
            unfinished.replace(path)
        return load_file(path)["latents"]

    @cached_property
    def scaling_factor(self) -> float:
        return scaling_factor(self.unscaled_latents("train"))

    @cached_property
    def train_latents(self) -> torch.Tensor:
        return torch.cat([self.latents(split) for split in TRAINED_ON])

    @cached_property
    def basis(self) -> FaceBasis:
        """The face basis, fitted once to the frames of training, or imported."""
        path = self.folder / FACE_BASIS
        if not path.exists():
            fit(self.train_frames).save(path)
            validation = self.validation_frames
            distances = errors(FaceBasis.load(path), validation, validation.blendshapes)
            print("face basis, px of 512:", *(f"{part} {px:.1f}" for part, px in distances.items()), sep="  ")
        return FaceBasis.load(path)

    def latents(self, split: str) -> torch.Tensor:
        """What is denoised: latents of unit spread."""
        return self.unscaled_latents(split) * self.scaling_factor

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        folder = self.folder / "tokenizer"
        if not folder.exists():
            return make_tokenizer([str(caption) for caption in self.train_frames.captions], folder)
        return CLIPTokenizer.from_pretrained(folder)

    def base_stage(self) -> BaseStage:
        model = self.config["model"]
        train_latents, validation_latents = self.train_latents, self.latents("validation")
        return BaseStage(
            make_unet(
                model["channels"],
                model["layers"],
                model["text_width"],
                model["latent_channels"],
                self.side,
                tuple(model["base_heads"]),
            ),
            make_text_encoder(self.tokenizer, model["text_width"]),
            self.tokenizer,
            self.finished_autoencoder(),
            train_latents,
            [str(caption) for caption in self.train_frames.captions],
            validation_latents,
            [str(caption) for caption in self.validation_frames.captions],
            self.train_frames.identity,
        )

    def adapter_parts(
        self, base: BaseStage, classes: tuple = (HMReferenceAdapter, HMControlNet, HMV2ControlNet)
    ) -> tuple:
        """The adapters at their start, and what else their stages take besides the base's UNet.

        classes: of the reference adapter and of the control nets for the down and the up blocks.
        """
        model = self.config["model"]
        channels = model["channels"]
        adapter_class, down_class, up_class = classes
        adapter = adapter_class(channels, num_attention_heads=model["heads"], version="v1")
        start_by_copying(adapter, self.side)
        adapter.reference_modules_down[3].requires_grad_(False)  # the method has no use for it
        # The pose picture has twice the side of the latents. v1's maps begin at half the latents' side, v2's
        # at the whole.
        width = model["control_width"]
        down = down_class(scale_factor=2, block_out_channels=(32, *channels[:3]), cross_attention_dim=width)
        up_widths = (channels[1], channels[2], channels[3], channels[3])
        up = up_class(scale_factor=1, block_out_channels=(32, *up_widths), cross_attention_dim=width)
        for net in (down, up):
            start_by_attending(net)
        with torch.no_grad():
            empty_text = base.text_encoder(tokenize(self.tokenizer, [""])).last_hidden_state
            some = base.latents[:MEASURED_FRAMES].to(base.unet.device, torch.float32)
            text = empty_text.to(some.device).expand(len(some), -1, -1)
            features = HMReferenceNet(base.unet)(some, text)
        scale_to_features(adapter, features)
        return (
            adapter,
            nn.ModuleList([down, up]),
            empty_text,
            base.autoencoder,
            self.train_frames,
            base.latents,
            self.validation_frames,
            base.validation_latents,
            self.basis,
            2 * self.side,
        )

    def new_reader(self) -> Reader:
        return Reader(self.config["model"]["latent_channels"], self.side)

    def reader_stage(self) -> ReaderStage:
        latents = (self.train_latents, self.latents("validation"))
        return ReaderStage(self.new_reader(), self.train_frames, self.validation_frames, *latents)

    def finished_reader(self) -> Reader | None:
        """The reader, if there is one: its stage may be left out."""
        weights = self.folder / "reader" / "averaged.safetensors"
        if not weights.exists():
            return None
        reader = self.new_reader()
        reader.load_state_dict(
            {name.removeprefix("reader."): tensor for name, tensor in load_file(weights).items()}
        )
        return reader

    def together_stage(self) -> TogetherStage:
        base = load_averaged(self.base_stage(), self.folder / "base")
        stage = TogetherStage(base, *self.adapter_parts(base), reader=self.finished_reader())
        if (self.folder / "adapters" / "averaged.safetensors").exists():  # an imported model's
            stage.load_state_dict(load_file(self.folder / "adapters" / "averaged.safetensors"), strict=False)
        return stage

    def adapters_stage(self) -> AdapterStage:
        base = load_averaged(self.base_stage(), self.folder / "base").requires_grad_(False)
        return AdapterStage(base.unet.eval(), *self.adapter_parts(base), reader=self.finished_reader())

    def new_motion_adapter(self) -> MotionAdapter:
        model = self.config["model"]
        return make_motion_adapter(
            model["channels"], model["layers"], model["heads"], model["motion_transformer_layers"]
        )

    def motion_stage(self) -> MotionStage:
        self.check_adapters()
        motion = self.new_motion_adapter()
        adapters = load_averaged(self.adapters_stage(), self.folder / "adapters")
        splits = [part for name in self.splits("clips") for part in (self.frames(name), self.latents(name))]
        return MotionStage(adapters, motion, *splits, self.config["data"]["clip_frames"])

    @property
    def knows_its_face(self) -> bool:
        """Whether the adapters were trained with a reference that is seen with control maps of its own, as
        all are that were trained here."""
        with safe_open(self.folder / "adapters" / "averaged.safetensors", "pt") as file:
            return ALONE not in (file.metadata() or {})

    def check_adapters(self) -> None:
        """Raises HelloMemeError where the adapters cannot be built upon."""
        if not self.knows_its_face:
            raise HelloMemeError(
                "The imported adapters were trained with a reference that does not see its own face: train "
                "`together` or `adapters` first."
            )

    def export(self, folder: Path) -> None:
        base = load_averaged(self.base_stage(), self.folder / "base")
        parts = base.autoencoder, base.unet, base.text_encoder, self.tokenizer, make_scheduler()
        export_base(folder, *parts, self.knows_its_face)
        stage = load_averaged(self.adapters_stage(), self.folder / "adapters")
        down, up = stage.controls
        self.basis.save(folder / FACE_BASIS)
        (folder / MEASURED).unlink(missing_ok=True)  # of another model
        export_adapters(folder, {"hm_reference": stage.adapter, "hm_control": down, "hm_control_up": up})
        if (self.folder / "motion").exists():
            moving = load_averaged(self.motion_stage(), self.folder / "motion").denoising_net.unet
            # The UNet's own `save_motion_modules` expects a layer at every resolution.
            motion = self.new_motion_adapter()
            motion.load_state_dict({k: v for k, v in moving.state_dict().items() if "motion_modules" in k})
            motion.half().save_pretrained(folder / "motion")

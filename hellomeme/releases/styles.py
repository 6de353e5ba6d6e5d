"""Styles: which base model, autoencoder and LoRA draw, and the presets of the released app.

This module is data; `base_model`, `autoencoder` and `loras` load what a style names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import HelloMemeError
from .hub import HUB_ID, as_path, check_exists

BASES = {
    name: f"songkey/{name}"
    for name in (
        "stable-diffusion-v1-5",
        "realisticVisionV60B1_v51VAE",
        "disney-pixar-cartoon-b",
        "toonyou_beta6",
        "LZ_2DCartoon_V2",
        "meinamix_v12Final",
        "animedark_v10",
        "absolutereality_v181",
        "dreamshaper_8",
        "epicphotogasm_ultimateFidelity",
        "epicrealism_naturalSinRC1VAE",
        "xxmix9realistic_v40",
        "cyberrealistic_v80",
        "animeanything_v10",
    )
}
LORAS = {
    name: f"songkey/loras_sd_1_5/{name}.safetensors"
    for name in (
        "baby_face_v1",
        "more_details",
        "pixel-portrait-v1",
        "Drawing",
        "anime_extract",
        "animemix_v3_offset",
        "animeoutlineV4_16",
        "ghibli_anime_v1",
        "zyd232_InkStyle_v1_0",
    )
}
PREDICTIONS = ("epsilon", "v_prediction", "v_prediction_zero_snr")
OFFICIAL = "official"  # names the release's own base model, or its autoencoder
OWN = "base"  # names the autoencoder of the base model
MAX_STRENGTH = 10.0
MAX_NAMES = 20  # LoRA of one style, and embeddings
MAX_WORD = 100  # letters
NO_LORA = "none"


class Lora(NamedTuple):
    """source: a preset, file, folder, hub id or "hub id/file". strength: 0 is without it, 1 as trained."""

    source: str
    strength: float = 1.0

    @classmethod
    def of(cls, given: str | Path | Sequence) -> Lora:
        """From a source, "source:strength", or a pair of both; HelloMemeError for a bad strength."""
        if isinstance(given, (tuple, list)) and len(given) == 2:
            source, strength = given
        else:
            source, strength = split_strength(_text(given))
            strength = 1.0 if strength is None else strength
        if isinstance(strength, bool) or not isinstance(strength, (int, float)):
            strength = float("nan")
        if not -MAX_STRENGTH <= strength <= MAX_STRENGTH:
            raise HelloMemeError(
                f"The strength of a LoRA must be a number from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}."
            )
        return cls(str(as_path(source)) if os.path.exists(as_path(source)) else str(source), float(strength))

    @property
    def text(self) -> str:
        """The form "source:strength", or the source alone for a strength of 1."""
        return self.source if self.strength == 1 else f"{self.source}:{self.strength:g}"


class Embedding(NamedTuple):
    """source: a file, folder, hub id or "hub id/file". word: its name in prompts; "" for the file's own."""

    source: str
    word: str = ""

    @classmethod
    def of(cls, given: str | Path | Sequence) -> Embedding:
        """From a source, "source:word", or a pair of both; HelloMemeError for what is none."""
        if isinstance(given, (tuple, list)) and len(given) == 2:
            source, word = given
        else:
            source, _, word = str(_text(given)).rpartition(":")
            if not source or os.path.exists(as_path(given)) or "/" in word or "\\" in word:
                source, word = given, ""
        if not isinstance(word, str) or len(word) > MAX_WORD:
            raise HelloMemeError(f"The word for an embedding must be a text of at most {MAX_WORD} letters.")
        return cls(str(as_path(source)) if os.path.exists(as_path(source)) else str(source), word.strip())


def split_strength(given: str | Path) -> tuple[str | Path, float | None]:
    """The source and the strength in "source:strength"; None without a number behind the colon, or where a
    file has that name."""
    source, colon, strength = str(given).rpartition(":")
    if colon and source and not os.path.exists(as_path(given)):
        try:
            return source, float(strength)
        except ValueError:
            pass
    return given, None


def _text(source: str | Path) -> str | Path:
    """The source as it is; HelloMemeError for anything that is no text."""
    as_path(source)
    return source


def _field(label: str, help: str, default: Any = None) -> Any:
    return dataclasses.field(default=default, metadata={"label": label, "help": help})


NAMES = ("base", "vae", "reference_base", "few_steps_lora")  # fields that each name a source
LISTS = ("loras", "embeddings")


@dataclass(frozen=True)
class Style:
    """Which weights draw.

    base: a preset, hub id, diffusers folder or single .safetensors file; None for the release's own.
    vae: the autoencoder that decodes: a hub id, folder or .safetensors file, OFFICIAL, or OWN or None for the
    base's. loras: `Lora`, or what `Lora.of` takes.
    reference_base: the model that sees the reference picture and whose text encoder reads the prompt. None
    for the one that draws (the released "stylize x2"), OFFICIAL for the release's own base model ("x1"), or
    another base model. prediction_type: what the model that draws predicts, one of PREDICTIONS; None for what
    it says of itself. embeddings: `Embedding`, or what `Embedding.of` takes. few_steps_lora: what few-step
    presets draw with, as in `Lora`, NO_LORA where the base model or one of `loras` is distilled already; None
    for the preset's own.
    """

    base: str | None = _field("Base model", "The Stable Diffusion 1.5 model that draws.")
    vae: str | None = _field("Autoencoder", "What turns latents into pixels; the base model has its own.")
    loras: tuple[Lora, ...] = _field("LoRA", "Small files that add a style to the base model.", ())
    reference_base: str | None = _field(
        "Style strength",
        "x1: plain Stable Diffusion sees the reference, which keeps the likeness; "
        "x2: the styled model sees it, too.",
    )
    prediction_type: str | None = _field(
        "Prediction", "What the base model was trained to predict, where its files do not say so."
    )
    embeddings: tuple[Embedding, ...] = _field("Embeddings", "Files that each teach prompts a word.", ())
    few_steps_lora: str | None = _field(
        "Few-step LoRA", "A file in place of the LoRA that a few-step preset downloads, or none."
    )

    def __post_init__(self):
        for name in NAMES:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value in (None, "") else str(_text(value)))
        if self.prediction_type not in (None, *PREDICTIONS):
            raise HelloMemeError(
                f"There is no prediction type {self.prediction_type}: choose from {', '.join(PREDICTIONS)}."
            )
        if self.vae == OWN:
            object.__setattr__(self, "vae", None)
        if len(self.loras) > MAX_NAMES:
            raise HelloMemeError(f"There are {len(self.loras)} LoRA: choose {MAX_NAMES} at most.")
        if len(self.embeddings) > MAX_NAMES:
            raise HelloMemeError(f"There are {len(self.embeddings)} embeddings: choose {MAX_NAMES} at most.")
        object.__setattr__(self, "loras", tuple(map(Lora.of, self.loras)))
        object.__setattr__(self, "embeddings", tuple(map(Embedding.of, self.embeddings)))

    def check(self) -> None:
        """Refuse sources that are neither presets nor on this computer, and that the hub cannot have."""
        presets = {OFFICIAL, None, *BASES, *LORAS}
        files = (one.source for one in (*self.loras, *self.embeddings))
        distilled = None if self.few_steps_lora == NO_LORA else self.few_steps_lora
        for source in (self.base, self.vae, self.reference_base, distilled, *files):
            if source not in presets:
                check_exists(source)

    @property
    def base_source(self) -> str | None:
        """Hub id or path of the base model; None for the release's own."""
        return None if self.base == OFFICIAL else BASES.get(self.base, self.base)

    @property
    def models(self) -> Style:
        """The style without its LoRA and embeddings, which are exchanged more easily than models."""
        return dataclasses.replace(self, loras=(), embeddings=(), few_steps_lora=None)

    @property
    def shown(self) -> Style:
        """The style for metadata: files and folders of this computer by their last name only."""
        loras = tuple(lora._replace(source=last_name(lora.source)) for lora in self.loras)
        embeddings = tuple(one._replace(source=last_name(one.source)) for one in self.embeddings)
        names = {name: getattr(self, name) for name in NAMES}
        names = {name: value and last_name(value) for name, value in names.items()}
        return dataclasses.replace(self, loras=loras, embeddings=embeddings, **names)

    @property
    def facts(self) -> dict[str, Any]:
        """What `shown` says, as JSON without what is not chosen. The inverse is `from_facts`."""
        shown = dataclasses.asdict(self.shown)
        shown |= {name: [list(one) for one in shown[name]] for name in LISTS}
        return {name: value for name, value in shown.items() if value}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Style:
        """The inverse of `facts`; unknown names are ignored. ValueError or HelloMemeError for bad ones."""
        known = {field.name for field in dataclasses.fields(cls)}
        facts = {name: value for name, value in facts.items() if name in known}
        names = (value for name, value in facts.items() if name not in LISTS)
        if not all(isinstance(name, str) and len(name) <= 200 for name in names):
            raise ValueError("a name")
        return cls(**facts)


def last_name(source: str) -> str:
    """A preset, hub id or "hub id/file" as it is; of a path only its last part."""
    hub_id = HUB_ID.fullmatch(source) or _in_repository(source)
    here = os.path.exists(as_path(source))
    return source if source in BASES or source in LORAS or (hub_id and not here) else Path(source).name


def _in_repository(source: str) -> bool:
    return source.count("/") == 2 and bool(HUB_ID.fullmatch(source.rpartition("/")[0]))


def split_repository(source: str) -> tuple[str, str | None]:
    """The hub id and the file of "owner/name/file.safetensors"; None as the file for anything else."""
    if _in_repository(source) and source.endswith(".safetensors"):
        repository, _, name = source.rpartition("/")
        return repository, name
    return source, None

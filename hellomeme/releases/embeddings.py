"""Loads embeddings (textual inversion): a word of prompts each, in a file of some kilobytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import Progress
from .lora_file import TEXT_WIDTH_OF
from .one_file import find_file
from .styles import Embedding
from .tensors import facts_of, read

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline import HelloMemePipeline

VECTORS = "emb_params"  # the name of the tensor where the file's name is the word
MAX_VECTORS = 75  # words that fit into a prompt


def load_embeddings(
    pipeline: HelloMemePipeline, chosen: Iterable[Embedding], progress: Progress | None = None
) -> None:
    """Makes these the words that prompts may have beside the tokenizer's.

    Raises HelloMemeError as `read_embeddings` does; the pipeline is then as before.
    """
    pipeline.embeddings = read_embeddings(pipeline, chosen, progress)


def read_embeddings(
    pipeline: HelloMemePipeline, chosen: Iterable[Embedding], progress: Progress | None = None
) -> dict[str, Tensor]:
    """Word -> its vectors (n, D), for the text encoder of a pipeline.

    Raises HelloMemeError for one that is missing, damaged or made for another kind of model.
    """
    width = pipeline.text_encoder.config.hidden_size
    return dict(_read(embedding, width, progress) for embedding in chosen)


def _read(embedding: Embedding, width: int, progress: Progress | None) -> tuple[str, Tensor]:
    """The word, and its vectors (n, width)."""
    import torch

    path = find_file(embedding.source, progress, "embedding")
    facts = facts_of(path)
    name = VECTORS if VECTORS in facts else next(iter(facts), None)
    if name is None or ("clip_g" not in facts and name != VECTORS and len(facts) > 1):
        raise HelloMemeError(f"{path.name} is not an embedding: it holds {len(facts)} tensors.")
    shape = facts[name].shape
    if "clip_g" in facts or (shape and shape[-1] != width):
        known = "Stable Diffusion XL" if "clip_g" in facts else TEXT_WIDTH_OF.get(shape[-1])
        raise HelloMemeError(
            f"{path.name} is an embedding for {known or 'another kind of model'} (a vector has {shape[-1]} "
            f"numbers, not {width}): choose one for this base model."
        )
    count = {1: 1, 2: shape[0] if shape else 0}.get(len(shape), 0)
    if not 0 < count <= MAX_VECTORS or "F" not in facts[name].kind:
        raise HelloMemeError(f"{path.name} is not an embedding: its tensor has the shape {shape}.")
    word = embedding.word or (path.stem if name == VECTORS else name)
    ((_, vectors),) = read(path, [name])
    return word, vectors.to(torch.float32, copy=True).reshape(-1, width)

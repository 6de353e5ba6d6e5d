"""Prompts: words with weights, as in "a (smiling:1.3) face", and embeddings, which stand for a word each.

A weight w takes the states of its words w times as far from those of an empty prompt. Embeddings are textual
inversion (arXiv 2208.01618): vectors that take the places of the word's tokens in the text encoder.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .errors import HelloMemeError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

MAX_WEIGHT = 10.0
WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
LORA = re.compile(r"<(?:lora|lyco|hypernet):([^:>]*)(?::([^>]*))?>")


class Words(NamedTuple):
    """A part of a prompt."""

    text: str
    weight: float = 1.0


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that other programs would understand otherwise, or with a weight out of range."""
    if found := LORA.search(prompt):
        given = ":".join(filter(None, found.groups()))
        raise HelloMemeError(
            f"{found[0]} in a prompt loads no LoRA here: give it as --lora {given}, or in the list of LoRA."
        )
    parts_of(prompt)


def parts_of(prompt: str) -> list[Words]:
    """The parts of a prompt with their weights; one inside of another has the product of both.

    Only brackets with a weight count: all others are words, as those with a backslash before them are. Raises
    HelloMemeError for a weight that is not from -10 to 10.
    """
    levels: list[list[Words]] = [[]]  # for the prompt, and for each bracket that is open
    for piece in re.findall(r"\\[()]|[()]|[^()\\]+|\\", prompt):
        if piece == "(":
            levels.append([])
        elif piece == ")" and len(levels) > 1:
            inner = levels.pop()
            found = WEIGHT.search(inner[-1].text) if inner else None
            if found is None:
                levels[-1] += [Words("("), *inner, Words(")")]
                continue
            if abs(weight := float(found[1])) > MAX_WEIGHT:
                raise HelloMemeError(
                    f"A weight in a prompt must be a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not "
                    f"{weight:g}."
                )
            inner[-1] = Words(inner[-1].text[: found.start()])
            levels[-1] += [Words(text, own * weight) for text, own in inner]
        else:
            levels[-1].append(Words(piece))
    while len(levels) > 1:
        inner = levels.pop()
        levels[-1] += [Words("("), *inner]
    return _joined(levels[0])


def _joined(parts: Sequence[Words]) -> list[Words]:
    """The same with neighbours of one weight in one part; backslashes are gone where there are weights."""
    weighted = any(weight != 1 for _, weight in parts)
    joined: list[Words] = []
    for text, weight in parts:
        text = text[1:] if weighted and text in ("\\(", "\\)") else text
        if joined and joined[-1].weight == weight:
            text = joined.pop().text + text
        joined.append(Words(text, weight))
    return [part for part in joined if part.text]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    encoder: nn.Module,
    prompts: Sequence[str],
    embeddings: Mapping[str, Tensor],
) -> Tensor:
    """Text states (B, N, D) of B prompts; N is the tokenizer's length (77 for SD1.5), and words beyond it are
    cut off.

    embeddings: word -> its vectors (n, D). Raises HelloMemeError for a weight that is none.
    """
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    rows = [_tokens(tokenizer, parts_of(prompt), embeddings, length) for prompt in prompts]
    weighted = any(weight != 1 for row in rows for weight in row.weights)
    if weighted:  # the states to start from
        rows.append(_tokens(tokenizer, [], {}, length))
    import torch

    numbers = torch.tensor([row.numbers for row in rows], device=encoder.device)
    vectors = {(i, at): vector for i, row in enumerate(rows) for at, vector in row.vectors.items()}
    with _in_place_of_tokens(encoder, vectors):
        states = encoder(numbers)[0]
    if not weighted:
        return states
    *states, empty = states
    weights = torch.tensor([row.weights for row in rows[:-1]], device=encoder.device, dtype=empty.dtype)
    return torch.lerp(empty.expand(len(states), -1, -1), torch.stack(states), weights[..., None])


class _Tokens(NamedTuple):
    """Of one prompt: token numbers and weights, and the vectors that take a token's place."""

    numbers: list[int]
    weights: list[float]
    vectors: dict[int, Tensor]


def _tokens(
    tokenizer: PreTrainedTokenizerBase, parts: Sequence[Words], embeddings: Mapping[str, Tensor], length: int
) -> _Tokens:
    names = "|".join(re.escape(name) for name in sorted(embeddings, key=len, reverse=True))
    numbers: list[int] = []
    weights: list[float] = []
    vectors: dict[int, Tensor] = {}
    for text, weight in parts:
        for piece in re.split(rf"(?<!\w)({names})(?!\w)", text) if names else [text]:
            if piece in embeddings:
                vectors |= {len(numbers) + i + 1: vector for i, vector in enumerate(embeddings[piece])}
                found = [0] * len(embeddings[piece])  # any token: its vector is replaced
            else:
                found = tokenizer(piece, add_special_tokens=False).input_ids
            numbers += found
            weights += [weight] * len(found)
    numbers, weights = numbers[: length - 2], weights[: length - 2]
    rest = length - 1 - len(numbers)
    padding = [tokenizer.eos_token_id, *[tokenizer.pad_token_id] * (rest - 1)]
    vectors = {at: vector for at, vector in vectors.items() if at <= len(numbers)}
    return _Tokens([tokenizer.bos_token_id, *numbers, *padding], [1.0, *weights, *[1.0] * rest], vectors)


@contextlib.contextmanager
def _in_place_of_tokens(encoder: nn.Module, vectors: Mapping[tuple[int, int], Tensor]) -> Iterator[None]:
    """In this block the text encoder sees these vectors, by row and place, for the tokens that are there."""

    def replace(module, inputs, output: Tensor) -> Tensor:
        output = output.clone()
        for place, vector in vectors.items():
            output[place] = vector.to(output)
        return output

    hook = encoder.get_input_embeddings().register_forward_hook(replace) if vectors else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()

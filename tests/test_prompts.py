"""Prompts with weights, embeddings as words of prompts, and few-step presets with a LoRA of one's own."""

import pytest
import torch
from safetensors.torch import save_file
from styled import write_lora
from test_releases import v1

from hellomeme.errors import HelloMemeError
from hellomeme.models.lora_layers import adapters
from hellomeme.prompts import parts_of
from hellomeme.releases.embeddings import load_embeddings
from hellomeme.releases.load import load
from hellomeme.releases.styles import Embedding, Style
from hellomeme.settings import Settings
from hellomeme.styling import Styling

PARTS = {
    "a cat": [("a cat", 1)],
    "": [],
    "a (smiling:1.3) cat": [("a ", 1), ("smiling", 1.3), (" cat", 1)],
    "(a (red:1.2) hat:1.5)": [("a ", 1.5), ("red", 1.2 * 1.5), (" hat", 1.5)],
    "(one:0.5), (two: -.5 )": [("one", 0.5), (", ", 1), ("two", -0.5)],
    "(one:1.0) two": [("one two", 1)],
    # Brackets without a weight, or with a backslash, are words
    "a (grey) [cat] :) (:": [("a (grey) [cat] :) (:", 1)],
    "a (grey: old) cat": [("a (grey: old) cat", 1)],
    r"a \(grey:1.2\) cat": [(r"a \(grey:1.2\) cat", 1)],
    r"a \(grey\) (cat:2)": [("a (grey) ", 1), ("cat", 2)],
    "((cat:2)": [("(", 1), ("cat", 2)],
}


@pytest.mark.parametrize("prompt", PARTS)
def test_the_parts_of_a_prompt(prompt):
    assert [tuple(part) for part in parts_of(prompt)] == PARTS[prompt]


def test_what_a_prompt_cannot_have_is_told_first():
    for prompt, sentence in {
        "a <lora:ghibli:0.6> cat": "<lora:ghibli:0.6> in a prompt loads no LoRA here: give it as",
        "a (cat:11)": "A weight in a prompt must be a number from -10 to 10, not 11.",
    }.items():
        for name in ("prompt", "negative_prompt"):
            with pytest.raises(HelloMemeError) as error:
                Settings(**{name: prompt})
            assert str(error.value).startswith(sentence)


@pytest.fixture(scope="module")
def pipeline():
    return load(v1(), device="cpu")[0]


@pytest.fixture(autouse=True)
def no_embeddings(pipeline):
    yield
    load_embeddings(pipeline, [])


def plain(pipeline, prompt):
    """As diffusers encodes a prompt."""
    tokens = pipeline.tokenizer(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        return pipeline.text_encoder(tokens.input_ids)[0][0]


def test_a_weight_takes_its_words_so_much_further_from_the_empty_prompt(pipeline):
    for prompt in ("", "a cat, grey (or not)", "many words " * 50):
        assert torch.equal(pipeline.encode_prompt(prompt)[1], plain(pipeline, prompt))
    assert torch.equal(pipeline.encode_prompt("a (cat:1) b")[1], plain(pipeline, "a cat b"))

    def count(words):
        return len(pipeline.tokenizer(words, add_special_tokens=False).input_ids)

    negative, found = pipeline.encode_prompt("a (cat:1.5) b", "not (this:0.5)")
    for states, text, weight, before, word in (
        (found, "a cat b", 1.5, "a", "cat"),
        (negative, "not this", 0.5, "not", "this"),
    ):
        own, empty = plain(pipeline, text), plain(pipeline, "")
        rows = slice(1 + count(before), 1 + count(before) + count(word))
        expected = own.clone()
        expected[rows] = empty[rows] + weight * (own[rows] - empty[rows])
        assert (states - expected).abs().max() < 1e-5 and (own - expected).abs().max() > 1e-3


def test_embeddings_are_words_of_a_prompt(pipeline, tmp_path):
    """The vectors of words that the tokenizer knows, under other names: the same prompt in other words."""
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    numbers = pipeline.tokenizer("grey", add_special_tokens=False).input_ids
    save_file({"emb_params": table[numbers].clone()}, tmp_path / "my-style.safetensors")
    save_file({"<one>": table[numbers[0]].clone()}, tmp_path / "learned_embeds.safetensors")
    chosen = [
        (tmp_path / "my-style.safetensors", ""),
        f"{tmp_path / 'my-style.safetensors'}:other word",
        tmp_path / "learned_embeds.safetensors",
    ]
    before = pipeline.encode_prompt("a my-style cat, <one>")
    load_embeddings(pipeline, map(Embedding.of, chosen))
    assert set(pipeline.embeddings) == {"my-style", "other word", "<one>"}
    expected = plain(pipeline, "a grey cat")
    for prompt in ("a my-style cat", "a other word cat", "a (my-style:1.0) cat"):
        assert torch.equal(pipeline.encode_prompt(prompt)[1], expected)
    weighted = pipeline.encode_prompt("a (my-style:1.4) cat")
    assert torch.equal(weighted, pipeline.encode_prompt("a (grey:1.4) cat"))
    assert torch.equal(pipeline.encode_prompt("a my-styles cat")[1], plain(pipeline, "a my-styles cat"))
    long = "my-style " * 60
    assert torch.equal(pipeline.encode_prompt(long)[1], plain(pipeline, "grey " * 60))
    load_embeddings(pipeline, [])
    assert torch.equal(pipeline.encode_prompt("a my-style cat, <one>"), before)


def test_embeddings_that_do_not_fit_are_told(pipeline, tmp_path):
    files = {
        "wide": (
            {"emb_params": torch.ones(2, 768)},
            "is an embedding for another kind of model (a vector has 768 numb",
        ),
        "xl": (
            {"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 1280)},
            "is an embedding for Stable Diffusion XL",
        ),
        "lora": (
            {"a.lora": torch.ones(2), "b.lora": torch.ones(2)},
            "is not an embedding: it holds 2 tensors.",
        ),
        "deep": (
            {"emb_params": torch.ones(1, 1, 32)},
            "is not an embedding: its tensor has the shape (1, 1, 32).",
        ),
        "whole": (
            {"emb_params": torch.ones(1, 32).int()},
            "is not an embedding: its tensor has the shape (1, 32).",
        ),
        "nan": ({"emb_params": torch.ones(1, 32) / 0}, "holds values that are not numbers"),
    }
    for name, (tensors, sentence) in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        with pytest.raises(HelloMemeError) as error:
            load_embeddings(pipeline, [Embedding.of(tmp_path / f"{name}.safetensors")])
        assert str(error.value).startswith(f"{name}.safetensors {sentence}")
    assert not pipeline.embeddings
    with pytest.raises(HelloMemeError, match="^There is no file none.safetensors"):
        Style(embeddings=["none.safetensors"]).check()


def test_styles_name_embeddings_and_the_lora_of_few_steps(pipeline, tmp_path):
    save_file({"emb_params": torch.ones(1, 32)}, tmp_path / "word.safetensors")
    own = write_lora(tmp_path / "lcm.safetensors", 1, text=False)
    styling = Styling(pipeline, v1())
    style = Style(embeddings=[tmp_path / "word.safetensors"], few_steps_lora=str(own))
    unet = pipeline.unet
    styling.apply(style, "lcm")
    assert set(pipeline.embeddings) == {"word"} and len(adapters(unet)) == 1
    assert type(pipeline.scheduler).__name__ == "LCMScheduler"
    styling.apply(Style(loras=[own], few_steps_lora="none"), "tcd")
    assert not pipeline.embeddings and len(adapters(unet)) == 1 and pipeline.unet is unet
    assert type(pipeline.scheduler).__name__ == "TCDScheduler"
    styling.apply(Style(few_steps_lora="none"), "tcd")
    assert adapters(unet) == []
    styling.apply(Style(), "off")
    save_file({"emb_params": torch.ones(1, 99)}, tmp_path / "other.safetensors")
    with pytest.raises(HelloMemeError, match="is an embedding for another kind of model"):
        styling.apply(Style(loras=[own], embeddings=[tmp_path / "other.safetensors"]), "off")
    assert adapters(unet) == [] and styling.style == Style()
    assert (
        Style.from_facts(style.facts)
        == style.shown
        == Style(embeddings=[("word.safetensors", "")], few_steps_lora="lcm.safetensors")
    )
    assert Embedding.of("me/words:cat") == ("me/words", "cat") and Embedding.of("me/words") == (
        "me/words",
        "",
    )

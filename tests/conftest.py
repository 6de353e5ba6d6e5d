"""A tiny random model in the released layout, built by code, and the pictures the tests draw with."""

import atexit
import json
import os
import shutil
import tempfile

# Before the libraries are imported that read them: no test asks the network, and on networks this small a
# second thread only waits, which on a busy machine makes tests many times slower.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each process that runs a part of the tests keeps Gradio's files to itself: tests count what is left there.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="hellomeme-tests-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

import pytest
import torch

WIDTHS = (16, 32, 32, 32)
TEXT_WIDTH = 32


@pytest.fixture(autouse=True, scope="session")
def same_types_on_all_processors():
    """Networks are loaded in float32 wherever the tests run, unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hellomeme.releases.load.multiplies_bfloat16", lambda: False)
        yield


def write_tokenizer(folder):
    """A CLIP tokenizer of single bytes: no merges, so that a word is its letters."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(
        json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
    ).save_pretrained(folder)
    return len(words)


def write_model_folder(folder, latent_channels=8, vae=None, widths=WIDTHS):
    """A folder like assets/demo: an SD1.5-shaped base of some 0.8 M random numbers, adapter and control nets.

    All weights get a seeded random value, also those that are zero when made, so that everything shows in the
    result.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from hellomeme.models.adapters import HMReferenceAdapter
    from hellomeme.models.autoencoder import PatchAutoencoder
    from hellomeme.models.control import HMControlNet, HMV2ControlNet

    torch.manual_seed(0)
    words = write_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    networks = {
        "unet": UNet2DConditionModel(
            sample_size=16,
            in_channels=latent_channels,
            out_channels=latent_channels,
            layers_per_block=1,
            block_out_channels=widths,
            norm_num_groups=8,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        ),
        "vae": vae
        or PatchAutoencoder(
            latent_channels=latent_channels,
            encoder_channels=(8, 8),
            decoder_channels=(8, 8, 8),
            layers_per_block=1,
        ),
        "text_encoder": CLIPTextModel(text),
        "hm_reference": HMReferenceAdapter(block_out_channels=widths, num_attention_heads=4),
        "hm_control": HMControlNet(
            block_out_channels=(8, *widths[:3]),
            cross_attention_dim=TEXT_WIDTH,
            input_channels=3,
            scale_factor=2,
        ),
        "hm_control_up": HMV2ControlNet(
            block_out_channels=(8, *widths[1:], widths[3]), cross_attention_dim=TEXT_WIDTH, scale_factor=1
        ),
    }
    for name, network in networks.items():
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        network.save_pretrained(folder / name)
    DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    ).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Path of a tiny model in the layout of the bundled demo; read it, do not change it."""
    return write_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def online(tmp_path, monkeypatch):
    """Points huggingface_hub, which reads its environment once, to an endpoint and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # the amount written and reported at once
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between attempts

    def online(endpoint):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", endpoint is None)
        endpoint = endpoint or "http://127.0.0.1:9"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )

    return online

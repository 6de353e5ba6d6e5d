"""What is faster must be the same: compiled blocks, and linear layers through oneDNN."""

import pytest
import torch
from PIL import Image
from torch import nn

from hellomeme import acceleration
from hellomeme.acceleration import OneDnnLinear, accelerate, compile_blocks, repeated_blocks
from hellomeme.cli import main
from hellomeme.errors import HelloMemeError
from hellomeme.models.unet import HMDenoisingNet, HMReferenceNet
from hellomeme.releases.load import load


@pytest.fixture
def pipeline(model_folder):
    return load(str(model_folder), device="cpu")[0]


@torch.no_grad()
def step(pipeline, rows=2):
    """A prediction with a reference."""
    generator = torch.Generator().manual_seed(0)
    unet, side = pipeline.unet, 16
    latents = torch.randn(rows, unet.config.in_channels, 1, side, side, generator=generator).to(unet.dtype)
    width = unet.config.cross_attention_dim
    text = torch.randn(rows, 7, width, generator=generator).to(unet.dtype)
    reference = pipeline.hm_reference.prepare(HMReferenceNet(unet)(latents[:, :, 0], text))
    return HMDenoisingNet(unet, pipeline.hm_reference)(latents, 500, text, reference=reference)


def test_compiled_blocks_predict_the_same_without_a_break(pipeline):
    expected = step(pipeline)
    torch._dynamo.reset()
    compile_blocks(pipeline, backend="aot_eager", fullgraph=True)  # a break in a graph would be an error
    blocks = list(repeated_blocks(pipeline))
    assert len(blocks) > 4 and all(block._compiled_call_impl is not None for block in blocks)
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(step(pipeline), expected, atol=1e-5, rtol=0)
    counted = torch._dynamo.utils.counters
    assert counted["stats"]["unique_graphs"] > 0 and not counted["graph_break"]
    torch._dynamo.reset()


def test_the_option_asks_for_a_compiler_before_anything_is_loaded(model_folder, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(acceleration.shutil, "which", lambda _: None)
    with pytest.raises(HelloMemeError, match=r"--compile needs a C\+\+ compiler .*: install it, or leave"):
        load(str(model_folder), device="cpu", compiled=True)
    face, out = tmp_path / "face.png", tmp_path / "out.png"
    Image.new("RGB", (64, 64)).save(face)
    assert main.main(["image", str(face), str(face), str(out), "--compile"]) == 2
    assert "--compile needs" in capfd.readouterr().err
    monkeypatch.setattr(acceleration.shutil, "which", lambda name: name)
    monkeypatch.setattr(acceleration, "find_spec", lambda _: None)
    acceleration.check_compiler(torch.device("cpu"))
    with pytest.raises(HelloMemeError, match="needs triton"):
        acceleration.check_compiler(torch.device("cuda"))


def test_linear_layers_through_onednn_predict_the_same(pipeline, monkeypatch):
    expected = step(pipeline)
    monkeypatch.setattr(acceleration, "mkl_is_slow", lambda: True)
    accelerate(pipeline)
    assert not any(type(layer) is OneDnnLinear for layer in pipeline.unet.modules())  # a small network
    monkeypatch.setattr(acceleration, "is_small", lambda _: False)
    accelerate(pipeline)
    layers = [layer for layer in pipeline.unet.modules() if isinstance(layer, nn.Linear)]
    assert layers and all(type(layer) is OneDnnLinear for layer in layers)
    torch.testing.assert_close(step(pipeline), expected, atol=1e-5, rtol=0)

    layer = OneDnnLinear(8, 5)
    x = torch.randn(3, 8, 4).transpose(1, 2)
    out = layer(x)  # with gradients, as any layer
    out.sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), out.detach())
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)  # for other types and devices
        assert layer.to("meta")(x.to("meta")).shape == (3, 4, 5)
        assert OneDnnLinear(8, 5).bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "facts, slow",
    [
        ({"avx512_f": True, "cpu_name": "AMD EPYC 9R14"}, True),
        ({"avx512_f": True, "cpu_name": "Intel Xeon"}, False),
        ({"avx2": True, "cpu_name": "AMD EPYC 7R13"}, False),
        ({}, False),
    ],
)
def test_mkl_is_slow_where_it_keeps_from_the_instructions_there_are(monkeypatch, facts, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts)
    assert acceleration.mkl_is_slow() == (slow and torch.backends.mkl.is_available())


def test_a_block_of_each_kind_can_be_exported_and_predicts_the_same(pipeline, monkeypatch):
    """What compilation ahead of time begins with, as Spaces do it: a block is exported with what it was
    called with, and put in its own place."""
    kinds, seen = {}, {}
    for block in repeated_blocks(pipeline):
        kinds.setdefault(type(block), block)
    assert len(kinds) == 2, "a transformer block of the UNet and a reference attention"

    def listen(block, arguments, named):
        seen[block] = arguments, named

    hooks = [block.register_forward_pre_hook(listen, with_kwargs=True) for block in kinds.values()]
    expected = step(pipeline)
    for hook in hooks:
        hook.remove()
    calls = []
    for block, (arguments, named) in seen.items():
        with torch.no_grad():
            exported = torch.export.export(block, arguments, named).module()

        def forward(*arguments, exported=exported, **named):
            calls.append(exported)
            return exported(*arguments, **named)

        monkeypatch.setattr(block, "forward", forward)
    assert len(seen) == len(kinds)
    torch.testing.assert_close(step(pipeline), expected, atol=1e-5, rtol=0)
    assert len(set(calls)) == len(kinds)

"""The kinds of LoRA, each against its formula for the weight, and files that were made for other models."""

import logging

import pytest
import torch
from safetensors.torch import save_file
from styled import write_lora
from test_releases import v1

from hellomeme.errors import HelloMemeError
from hellomeme.models.lora_layers import adapters, without_loras
from hellomeme.releases.load import load
from hellomeme.releases.loras import load_loras

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
LINEAR, SQUARE, CONV, NORM = (
    f"{ATTENTION}.attn2.to_k",
    f"{ATTENTION}.attn1.to_out.0",
    "conv_in",
    "conv_norm_out",
)
TEXT = "encoder.layers.0.self_attn.k_proj"
NUMBERS = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def pipeline():
    return load(v1(), device="cpu")[0]


@pytest.fixture(autouse=True)
def nothing_is_left(pipeline):
    """With the last LoRA gone, every weight is as it was."""
    networks = [pipeline.unet, pipeline.text_encoder]
    before = [{name: x.clone() for name, x in net.state_dict().items()} for net in networks]
    yield
    load_loras(pipeline, [])
    for net, expected in zip(networks, before, strict=True):
        found = net.state_dict()
        assert found.keys() == expected.keys() and adapters(net) == []
        assert all(torch.equal(found[name], x) for name, x in expected.items())


def random(*shape):
    return 0.3 * torch.randn(*shape, generator=NUMBERS)


def weight_of(pipeline, layer, parameter="weight"):
    """As the layer sees it now, in float64."""
    network = pipeline.text_encoder if layer == TEXT else pipeline.unet
    return getattr(network.get_submodule(layer), parameter).detach().double()


def kohya(layer):
    prefix = "lora_te_text_model_" if layer == TEXT else "lora_unet_"
    return prefix + layer.replace(".", "_")


def loha(out, inner, kernel=1):
    w1a, w1b, w2a, w2b = random(out, 2), random(2, inner * kernel), random(out, 2), random(2, inner * kernel)
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    found = dict(zip(names, (w1a, w1b, w2a, w2b), strict=True)) | {"alpha": torch.tensor(3.0)}
    return found, lambda w: w + 1.5 * ((w1a @ w1b) * (w2a @ w2b)).reshape(w.shape)


def loha_of_tucker(out, inner, kernel):
    side = int(kernel**0.5)
    t1, t2 = random(2, 2, side, side), random(2, 2, side, side)
    w1a, w2a, w1b, w2b = random(2, out), random(2, out), random(2, inner), random(2, inner)
    names = ("hada_t1", "hada_t2", "hada_w1_a", "hada_w2_a", "hada_w1_b", "hada_w2_b")
    found = dict(zip(names, (t1, t2, w1a, w2a, w1b, w2b), strict=True)) | {"alpha": torch.tensor(1.0)}

    def product(kernel, a, b):
        result = torch.zeros(out, inner, side, side)
        for y in range(side):
            for x in range(side):
                result[:, :, y, x] = a.T @ kernel[:, :, y, x] @ b
        return result

    return found, lambda w: w + 0.5 * product(t1, w1a, w1b) * product(t2, w2a, w2b)


def lokr(out, inner, kernel=1, whole=False):
    w1, w2a, w2b = random(2, 4), random(out // 2, 3), random(3, inner // 4 * kernel)
    found = {"lokr_w1": w1, "alpha": torch.tensor(6.0)}
    found |= {"lokr_w2": w2a @ w2b} if whole else {"lokr_w2_a": w2a, "lokr_w2_b": w2b}
    scale = 1 if whole else 2  # whole matrices have no rank

    def change(w):
        small, result = (
            (w2a @ w2b).reshape(out // 2, inner // 4, kernel),
            w.reshape(out, inner, kernel).clone(),
        )
        for i in range(out):
            for j in range(inner):
                result[i, j] += (
                    scale * w1[i // (out // 2), j // (inner // 4)] * small[i % (out // 2), j % (inner // 4)]
                )
        return result.reshape(w.shape)

    return found, change


def lora(out, inner, kernel=1, mid=False):
    side = int(kernel**0.5)
    up, down, alpha = random(out, 2), random(2, inner), torch.tensor(1.0)
    if mid:
        core = random(2, 2, side, side)
        found = {"lora_up.weight": up[..., None, None], "lora_down.weight": down[..., None, None]}
        return found | {
            "lora_mid.weight": core,
            "alpha": alpha,
        }, lambda w: w + 0.5 * torch.einsum("oi,ijyx,jn->onyx", up.double(), core.double(), down.double())
    down = random(2, inner * kernel)
    found = {"lora_up.weight": up, "lora_down.weight": down, "alpha": alpha}
    return found, lambda w: w + 0.5 * (up @ down).reshape(w.shape)


def dora(out, inner, on_input=False):
    found, plain = lora(out, inner)
    norms = random(1, inner).abs() + 0.5 if on_input else random(out, 1).abs() + 0.5

    def change(w):
        changed = plain(w)
        return changed * norms / changed.square().sum(0 if on_input else 1, keepdim=True).sqrt()

    return found | {"dora_scale": norms}, change


def ia3(out, inner, on_input):
    numbers = random(1, inner) if on_input else random(out, 1)
    return {"weight": numbers, "on_input": torch.tensor(on_input)}, lambda w: w * (1 + numbers)


def full(*shape):
    diff = random(*shape)
    return {"diff": diff}, lambda w: w + diff


def cases():
    """name -> (layer, parameter, tensors, weight -> expected weight)"""
    wide, deep = (16, 32), (16, 4, 9)  # of LINEAR and CONV: outputs, inputs, places of the kernel
    text = (32, 32)
    return {
        "LoHa": (LINEAR, *loha(*wide)),
        "LoHa of the text encoder": (TEXT, *loha(*text)),
        "LoHa of a convolution": (CONV, *loha(*deep)),
        "LoHa of a convolution, Tucker": (CONV, *loha_of_tucker(*deep)),
        "LoKr": (LINEAR, *lokr(*wide)),
        "LoKr of whole matrices": (LINEAR, *lokr(*wide, whole=True)),
        "LoKr of a convolution": (CONV, *lokr(*deep)),
        "LoRA of a convolution, Tucker": (CONV, *lora(*deep, mid=True)),
        "DoRA": (LINEAR, *dora(*wide)),
        "DoRA by inputs": (SQUARE, *dora(16, 16, on_input=True)),
        "DoRA of the text encoder": (TEXT, *dora(*text)),
        "IA3 of inputs": (LINEAR, *ia3(*wide, on_input=True)),
        "IA3 of outputs": (LINEAR, *ia3(*wide, on_input=False)),
        "full difference": (CONV, *full(16, 4, 3, 3)),
        "full difference of a norm": (NORM, *full(16)),
    }


CASES = cases()


@pytest.mark.parametrize("case", CASES)
def test_each_kind_changes_the_weight_as_its_formula_says(pipeline, tmp_path, case):
    layer, tensors, change = CASES[case]
    before = weight_of(pipeline, layer)
    name = {NORM: "w_norm"}.get(layer, "")
    path = tmp_path / "own.safetensors"
    save_file({f"{kohya(layer)}.{name or end}": x.contiguous() for end, x in tensors.items()}, path)
    expected = change(before.double())
    assert (expected - before).abs().max() > 0.01
    for strength in (1, 0.5, -1):
        load_loras(pipeline, [(path, strength)])
        assert (weight_of(pipeline, layer) - (before + strength * (expected - before))).abs().max() < 1e-5
    with without_loras(pipeline.unet, pipeline.text_encoder):
        assert torch.equal(weight_of(pipeline, layer), before)
    assert not torch.equal(weight_of(pipeline, layer), before)


def test_kinds_and_files_add_up_in_any_order(pipeline, tmp_path):
    """In one file, with one that PEFT loads, and with biases; a picture's prediction follows."""
    before, bias = weight_of(pipeline, LINEAR), weight_of(pipeline, CONV, "bias")
    (one, change), (two, _), plain = loha(16, 32), lokr(16, 4, 9), random(16)
    mixed = {f"{kohya(LINEAR)}.{end}": x for end, x in one.items()}
    mixed |= {f"{kohya(CONV)}.{end}": x for end, x in two.items()} | {f"{kohya(CONV)}.diff_b": plain}
    save_file(mixed, tmp_path / "mixed.safetensors")
    simple = write_lora(tmp_path / "simple.safetensors", 1)
    noise, text = torch.ones(1, 4, 16, 16), torch.ones(1, 77, 32)
    drawn = {}
    for name, chosen in {
        "simple": [simple],
        "mixed": [tmp_path / "mixed.safetensors"],
        "both": [simple, (tmp_path / "mixed.safetensors", 0.5)],
        "turned": [(tmp_path / "mixed.safetensors", 0.5), simple],
    }.items():
        load_loras(pipeline, chosen)
        assert len(adapters(pipeline.unet)) == len(chosen)
        drawn[name] = pipeline.unet(noise, 1, text).sample
        if name == "mixed":
            assert (weight_of(pipeline, LINEAR) - change(before)).abs().max() < 1e-5
            assert (weight_of(pipeline, CONV, "bias") - bias - plain).abs().max() < 1e-6
    assert (drawn["both"] - drawn["turned"]).abs().max() < 1e-4
    assert min((drawn["both"] - drawn[name]).abs().max() for name in ("simple", "mixed")) > 1e-3
    with pytest.raises(HelloMemeError, match="LoRA are loaded and would be lost"):
        pipeline.save_pretrained(tmp_path / "saved")


def made(tmp_path, name, tensors, **metadata):
    save_file({key: x.clone() for key, x in tensors.items()}, tmp_path / f"{name}.safetensors", metadata)
    return tmp_path / f"{name}.safetensors"


def layer_of(pipeline, name=LINEAR):
    """What a linear layer multiplies with, however its LoRA is made."""
    layer = pipeline.unet.get_submodule(name)
    return layer(torch.eye(layer.in_features)).T


def plain(layer, width, dtype=torch.float32):
    tensors, change = lora(16, width)
    return {f"{kohya(layer)}.{end}": x.to(dtype) for end, x in tensors.items()}, change


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_a_lora_in_small_floats(pipeline, tmp_path, dtype):
    before = layer_of(pipeline)
    tensors, _ = plain(LINEAR, 32, dtype)
    load_loras(pipeline, [made(tmp_path, "small", tensors)])
    up, down = (tensors[f"{kohya(LINEAR)}.lora_{name}.weight"].float() for name in ("up", "down"))
    assert (layer_of(pipeline) - before - 0.5 * up @ down).abs().max() < 1e-3


def test_dora_as_peft_writes_it(pipeline, tmp_path):
    before = layer_of(pipeline)
    up, down, norms = random(16, 2), random(2, 32), random(16).abs() + 0.5
    names = {"lora_A.weight": down, "lora_B.weight": up, "lora_magnitude_vector": norms}
    load_loras(pipeline, [made(tmp_path, "dora", {f"unet.{LINEAR}.{end}": x for end, x in names.items()})])
    changed = before + up @ down
    expected = changed * (norms / changed.norm(dim=1))[:, None]
    assert (layer_of(pipeline) - expected).abs().max() < 1e-5


def test_older_names_and_other_tensors_beside_a_lora(pipeline, tmp_path, caplog):
    before, (tensors, change) = layer_of(pipeline), plain(LINEAR, 32)
    old = f"unet.{ATTENTION}.attn2.processor.to_k_lora"
    halves = {f"{old}.{end}.weight": tensors[f"{kohya(LINEAR)}.lora_{end}.weight"] for end in ("up", "down")}
    load_loras(pipeline, [made(tmp_path, "old", halves)])
    assert (layer_of(pipeline) - 2 * change(before) + before).abs().max() < 1e-5  # without an alpha
    tensors["bundle_emb.word.string_to_param.*"] = torch.ones(1, 32)
    with caplog.at_level(logging.WARNING, "hellomeme"):
        load_loras(pipeline, [made(tmp_path, "bundle", tensors)])
    assert (layer_of(pipeline) - change(before)).abs().max() < 1e-5
    assert "bundle.safetensors: 1 of its 2 layers belong to another network" in caplog.text


@pytest.mark.parametrize("kind", ["LoRA", "LoHa"])
def test_what_belongs_to_another_network_is_left_out_and_counted(pipeline, tmp_path, caplog, kind):
    before = layer_of(pipeline)
    own, change = plain(LINEAR, 32) if kind == "LoRA" else loha(16, 32)
    if kind == "LoHa":
        own = {f"{kohya(LINEAR)}.{end}": x for end, x in own.items()}
    other = {key.replace("down_blocks_0", "down_blocks_9"): x for key, x in own.items()}
    with caplog.at_level(logging.WARNING, "hellomeme"):
        load_loras(pipeline, [made(tmp_path, "half", {**own, **other})])
    first = kohya(LINEAR).replace("down_blocks_0", "down_blocks_9")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("hellomeme")] == [
        f"half.safetensors: 1 of its 2 layers belong to another network and were left out, {first} is one."
    ]
    assert (layer_of(pipeline) - change(before)).abs().max() < 1e-5
    load_loras(pipeline, [])
    with pytest.raises(HelloMemeError, match=r"^other.safetensors is not a LoRA for this base model: "):
        load_loras(pipeline, [made(tmp_path, "other", other)])


def refusals():
    """name -> (tensors, metadata, sentence)"""
    rank2 = {"lora_down.weight": torch.ones(2, 8), "lora_up.weight": torch.ones(8, 2)}

    def layer(name, **more):
        return {f"{name}.{end}": x for end, x in {**rank2, **more}.items()}

    xl = layer("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q") | layer("lora_te2_text_model_x")
    wide = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    loha_xl = {f"{wide}.hada_w1_b": torch.ones(2, 2048), f"{wide}.hada_w1_a": torch.ones(8, 2)}
    lokr_2 = {f"{wide}.lokr_w1": torch.ones(4, 8), f"{wide}.lokr_w2": torch.ones(4, 128)}
    says = "its layers have the names of that"
    not_read = "which cannot be used here: choose a LoRA, DoRA, LoHa, LoKr, IA3 or full difference."
    half = {f"{kohya(LINEAR)}.hada_w1_a": torch.ones(16, 2), f"{kohya(LINEAR)}.hada_w1_b": torch.ones(2, 32)}
    small = {f"{kohya(LINEAR)}.diff": torch.ones(4, 32)}
    no = "is not a LoRA for this base model: "
    return {
        "xl": (xl, {}, f"is a LoRA for Stable Diffusion XL ({says}): choose one for this base model."),
        "xl-loha": (loha_xl, {}, "is a LoRA for Stable Diffusion XL (its text is 2048 wide, not 32): choose"),
        "sd2-lokr": (lokr_2, {}, "is a LoRA for Stable Diffusion 2 (its text is 1024 wide, not 32): choose"),
        "flux": (layer("lora_unet_double_blocks_0_img_attn_proj"), {}, f"is a LoRA for Flux ({says})"),
        "sd2": (
            layer(kohya(SQUARE)),
            {"ss_base_model_version": "sd_v2_768_v"},
            "is a LoRA for Stable Diffusion 2 (its metadata say so): choose one for this base model.",
        ),
        "oft": ({f"{kohya(LINEAR)}.oft_blocks": torch.ones(4, 4, 4)}, {}, f"is of the kind OFT, {not_read}"),
        "glora": ({f"{kohya(LINEAR)}.a1.weight": torch.ones(4, 4)}, {}, f"is of the kind GLoRA, {not_read}"),
        "half": (half, {}, f"{no}{kohya(LINEAR)} has no hada_w2_a."),
        "small": (small, {}, f"{no}{kohya(LINEAR)} does not fit: its size is (4, 32) and not (16, 32)."),
        "nan": ({f"{kohya(LINEAR)}.diff": torch.ones(16, 32) / 0}, {}, "holds values that are not numbers"),
    }


REFUSALS = refusals()


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_used_is_told_by_its_name(pipeline, tmp_path, name):
    tensors, metadata, sentence = REFUSALS[name]
    with pytest.raises(HelloMemeError) as error:
        load_loras(pipeline, [made(tmp_path, name, tensors, **metadata)])
    assert str(error.value).startswith(f"{name}.safetensors {sentence}") and "\n" not in str(error.value)

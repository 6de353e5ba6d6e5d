"""Plain attention is what it says and as large as knitted attention, and the ablation runs from beginning to
end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import save_file
from test_training import CONFIG as TINY

from hellomeme.errors import HelloMemeError
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.attention import SKCrossAttention, SKReferenceAttention
from hellomeme.models.control import HMControlNet, HMV2ControlNet
from training import dataset
from training.evaluation import ablation
from training.evaluation.plain_attention import (
    PlainControlNet,
    PlainCrossAttention,
    PlainReferenceAdapter,
    PlainReferenceAttention,
    PlainV2ControlNet,
)
from training.loop import read_log, trained
from training.stages.start import start_by_copying
from training.workshop import Workshop

CHANNELS, HEADS = 16, 4
CONFIG = {
    "seed": 0,
    "data": TINY["data"]
    | {"validation_identities": 3, "frames": 3, "clips": 0, "validation_clips": 0, "clip_frames": 0}
    | {"cast": 1, "cast_frames": 3},
    "model": TINY["model"],
}
PLAN = {
    "seeds": [0, 1],
    "steps": 2,
    "looks": 1,
    "batch": 1,
    "learning_rate": 1e-2,
    "warmup": 1,
    "ema": 0.9,
    "validation_identities": 2,
}


def random_weights(net):
    torch.manual_seed(0)
    for parameter in net.double().parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def positions(table, height, width, below=0, right=0):
    """(h, w, C): pairs of channels in turn from the position of the column and from that of the row."""
    result = torch.zeros(height, width, table.shape[-1], dtype=table.dtype)
    for y in range(height):
        for x in range(width):
            for channel in range(table.shape[-1]):
                place = right + x if channel % 4 < 2 else below + y
                result[y, x, channel] = table[0, place, channel]
    return result


def attention(attn, queries, tokens):
    """Softmax attention of every query (B, M, C) to every token (B, N, D), written out."""
    q, k, v = (
        linear(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for linear, x in ((attn.to_q, queries), (attn.to_k, tokens), (attn.to_v, tokens))
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("batch", "frames", "height", "width"), [(1, 1, 4, 4), (2, 3, 3, 5)])
def test_plain_reference_attention_is_dense(batch, frames, height, width):
    """Twice: every position of the hidden map attends to every position of both maps."""
    net = random_weights(PlainReferenceAttention(CHANNELS, HEADS))
    hidden = torch.randn(batch * frames, CHANNELS, height, width, dtype=torch.double)
    reference = torch.randn(batch, CHANNELS, height, width, dtype=torch.double)

    def tokens(x, **shift):
        x = x.permute(0, 2, 3, 1) + positions(net.pos_embed.pe, height, width, **shift)
        return net.norm(x.reshape(len(x), height * width, CHANNELS))

    seen = tokens(reference.repeat_interleave(frames, dim=0), below=height, right=width)
    x = hidden
    for attn in (net.attn1, net.attn2):
        own = tokens(x)
        out = attention(attn, own, torch.cat([own, seen], dim=1))
        x = out.view(-1, height, width, CHANNELS).permute(0, 3, 1, 2)
    torch.testing.assert_close(
        net(hidden, net.prepare(reference)), hidden + net.proj(x), rtol=1e-10, atol=1e-10
    )


def test_plain_cross_attention_is_dense():
    net = random_weights(PlainCrossAttention(8, CHANNELS, HEADS, cross_attention_dim=12))
    picture, tokens = torch.randn(2, 8, 12, 8, dtype=torch.double), torch.randn(2, 5, 12, dtype=torch.double)
    received = net.pos_embed_hidden(tokens)
    where = positions(net.pos_embed.pe, 6, 4).flatten(0, 1)
    x = net.conv(picture).permute(0, 2, 3, 1).flatten(1, 2)
    x = attention(net.attn1, net.norm1(x + where), received)
    x = net.ff(attention(net.attn2, net.norm2(x + where), received))
    x = net.proj(x.permute(0, 2, 1).unflatten(2, (6, 4)))
    torch.testing.assert_close(net(picture, tokens), x, rtol=1e-10, atol=1e-10)


NETWORKS = {  # network with knitted attention -> the same with plain attention, arguments
    HMReferenceAdapter: (
        PlainReferenceAdapter,
        dict(block_out_channels=(16, 16, 32, 32), num_attention_heads=2),
    ),
    HMControlNet: (
        PlainControlNet,
        dict(block_out_channels=(8, 16, 16, 32), cross_attention_dim=16, scale_factor=2),
    ),
    HMV2ControlNet: (
        PlainV2ControlNet,
        dict(block_out_channels=(8, 16, 32, 32), cross_attention_dim=16, scale_factor=2),
    ),
}


def attentions(net):
    return [
        module for module in net.modules() if isinstance(module, (SKReferenceAttention, SKCrossAttention))
    ]


def is_plain(module):
    return isinstance(module, (PlainReferenceAttention, PlainCrossAttention))


@pytest.mark.parametrize("kind", NETWORKS)
def test_plain_attention_changes_no_tensor_and_is_saved(kind, tmp_path):
    plain_kind, arguments = NETWORKS[kind]
    nets = [kind(**arguments), plain_kind(**arguments)]
    shapes = [{name: x.shape for name, x in net.state_dict().items()} for net in nets]
    assert shapes[0] == shapes[1]
    for net in nets:
        assert {is_plain(module) for module in attentions(net)} == {type(net) is plain_kind}
        net.save_pretrained(tmp_path / type(net).__name__)
        loaded = type(net).from_pretrained(tmp_path / type(net).__name__)
        assert {is_plain(module) for module in attentions(loaded)} == {type(net) is plain_kind}
        assert all(torch.equal(x, net.state_dict()[name]) for name, x in loaded.state_dict().items())


@pytest.mark.parametrize("kind", NETWORKS)
def test_configs_that_say_which_attention_still_load(kind, tmp_path, caplog):
    """Earlier versions wrote the key `knitted` into config.json."""
    plain_kind, arguments = NETWORKS[kind]
    kind(**arguments).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert "knitted" not in config
    for knitted, fits, other in ((True, kind, plain_kind), (False, plain_kind, kind)):
        path.write_text(json.dumps(config | {"knitted": knitted}))
        logging.get_logger("diffusers").addHandler(caplog.handler)
        try:
            loaded = fits.from_pretrained(tmp_path)
        finally:
            logging.get_logger("diffusers").removeHandler(caplog.handler)
        assert {is_plain(module) for module in attentions(loaded)} == {not knitted} and not caplog.records
        with pytest.raises(HelloMemeError, match="attention, and this config asks for the other"):
            other.from_pretrained(tmp_path)


@pytest.mark.parametrize("place", ["up_2", "up_3"])
def test_plain_attention_starts_by_copying_too(place):
    """Before training, the query of a position scores the reference's same position, or one beside it,
    highest."""
    torch.manual_seed(0)
    adapter = PlainReferenceAdapter((64, 96, 128, 128), num_attention_heads=4)
    start_by_copying(adapter, side=16)
    module, side = adapter.module_at(place), {"up_2": 8, "up_3": 16}[place]
    own, twins = (
        module.norm(positions(module.pos_embed.pe, side, side, n, n)).flatten(0, 1) for n in (0, side)
    )
    chosen = (module.attn1.to_q(own) @ module.attn1.to_k(twins).T).argmax(1)
    y, x = torch.arange(side * side) // side, torch.arange(side * side) % side
    assert (chosen // side - y).abs().max() <= 1 and (chosen % side - x).abs().max() <= 1


def random_frames(split):
    """Frames of the right shapes in which nothing is to be seen."""
    data = CONFIG["data"]
    identities = {"train": data["identities"], "validation": data["validation_identities"], "cast": 1}[split]
    numbers = dataset.CAST[:1] if split == "cast" else np.arange(identities)
    identity = dataset.FIRST_IDENTITY[split] + np.repeat(numbers, data["frames"])
    rng, count = np.random.default_rng(0), len(identity)
    return dataset.Frames(
        images=rng.integers(0, 255, (count, 128, 128, 3), np.uint8),
        blendshapes=rng.random((count, 51), np.float32),
        commanded=rng.random((count, 51), np.float32),
        angles=np.zeros((count, 3), np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        origin=np.full((count, 2), 256, np.float32),
        scale=np.full(count, 60, np.float32),
        landmarks=rng.random((count, 478, 2), np.float32),
        identity=identity,
        captions=np.array(["a man, red hair", "a woman, glasses", "a man, smiling"] * identities),
        found=np.ones(count, bool),
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Arguments of the script for a work folder with untrained autoencoder and base."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("work")
    shop = Workshop(folder, CONFIG)
    for name in ("data", "autoencoder", "base"):
        (folder / name).mkdir()
    for split in ("train", "cast", "validation"):
        identities = len(set(random_frames(split).identity))
        ((path, _),) = dataset.shard_paths(folder / "data", split, identities, CONFIG["data"]["frames"], 128)
        np.savez(path, **vars(random_frames(split)))
    for name in ("autoencoder", "base"):
        tensors = {
            key: x.detach().contiguous() for key, x in trained(getattr(shop, f"{name}_stage")()).items()
        }
        save_file(tensors, folder / name / "averaged.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "plan.json").write_text(json.dumps(PLAN))
    return [
        "--folder",
        str(folder),
        "--config",
        str(folder / "config.json"),
        "--plan",
        str(folder / "plan.json"),
    ]


@pytest.fixture(scope="module")
def out(work, tmp_path_factory):
    """The results of the whole script."""
    out = tmp_path_factory.mktemp("results") / "ablation"
    ablation.main([*work, "--out", str(out), "--processes", "1"])
    return out


def a_run(work, out, **changes):
    _, folder, _, config, _, plan = map(ablation.Path, work)
    return replace(ablation.Run(folder, folder / "base", config, plan, out, "both", "knitted", 0), **changes)


def test_the_runs_of_a_pair_begin_alike_and_are_equally_large(work, out):
    for parts in ablation.PARTS:
        knitted, plain = (
            a_run(work, out, parts=parts, attention=name).stage() for name in ablation.ATTENTIONS
        )
        counts = [sum(p.numel() for p in trained(stage).values()) for stage in (knitted, plain)]
        assert abs(counts[0] - counts[1]) <= 0.05 * counts[0]
        assert trained(knitted).keys() == trained(plain).keys()
        assert {name.split(".")[0] for name in trained(plain)} == {
            "both": {"adapter", "controls"},
            "reference": {"adapter"},
            "control": {"controls"},
        }[parts]
        assert all(torch.equal(p, trained(knitted)[name]) for name, p in trained(plain).items())
        assert {is_plain(module) for module in attentions(plain)} == {True}
    other_seed = a_run(work, out, seed=1).stage().adapter.reference_modules_mid.attn1.to_q.weight
    assert not torch.equal(
        other_seed, a_run(work, out).stage().adapter.reference_modules_mid.attn1.to_q.weight
    )


def test_validation_is_the_same_every_time_and_tells_the_attentions_apart(work, out):
    knitted, plain = (a_run(work, out, attention=name).stage().eval() for name in ablation.ATTENTIONS)
    figures = []
    with torch.no_grad():
        for stage in (knitted, plain):
            for module in attentions(stage.adapter):  # at the start the reference attentions add nothing
                torch.nn.init.eye_(module.proj.weight[:, :, 1, 1])
            figures.append(stage.validate())
        assert knitted.validate() == figures[0]
    assert figures[0]["validation"] != figures[1]["validation"]


def test_the_ablation_writes_curves_pictures_and_a_table(out):
    rows = read_log(out / "curves.csv")
    assert len(rows) == 3 * 2 * 2 * 2  # pairs, attentions, seeds, looks
    assert [row["step"] for row in rows[:2]] == ["0", "2"]
    for row in rows:
        assert np.isfinite([float(row["validation"]), float(row["psnr"])]).all()
    starts = {(r["parts"], r["seed"]): r["validation"] for r in rows if r["step"] == "0"}
    ends = {(r["parts"], r["seed"]): r["validation"] for r in rows if r["step"] == "2"}
    assert all(starts[key] != ends[key] for key in starts), "every run learns something"
    assert Image.open(out / "curves.png").width > 500
    assert Image.open(out / "grid.jpg").size == (3 * 128, (2 + 3 * 2) * 128)  # of three identities
    table = (out / "table.md").read_text().splitlines()
    assert len(table) == 2 + 3 * 3 and len({line.count("|") for line in table}) == 1
    last = [
        float(r["psnr"]) for r in rows if (r["parts"], r["attention"], r["step"]) == ("both", "plain", "2")
    ]
    (line,) = (line for line in table if line.startswith("| reference and control | plain"))
    assert f"{np.mean(last):.2f} ({min(last):.2f} to {max(last):.2f})" in line
    assert not (out / "unfinished").exists()


def test_finished_runs_are_kept_and_a_missing_one_is_made_again_alike(work, out, capsys):
    again, kept = (a_run(work, out, attention=name).curve for name in ablation.ATTENTIONS)
    before, modified = read_log(again), kept.stat().st_mtime_ns
    again.unlink()
    ablation.main([*work, "--out", str(out), "--processes", "1"])
    assert "knitted less plain" in capsys.readouterr().out
    assert kept.stat().st_mtime_ns == modified
    for old, new in zip(before, read_log(again), strict=True):
        assert float(old["validation"]) == pytest.approx(float(new["validation"]), abs=1e-3)


def test_results_of_another_plan_are_not_mixed_in(work, out, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(json.dumps(PLAN | {"steps": 4}))
    with pytest.raises(SystemExit):
        ablation.main([*work[:4], "--plan", str(tmp_path / "plan.json"), "--out", str(out)])
    assert "another plan" in capsys.readouterr().err


def test_a_work_folder_without_a_base_is_refused(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "autoencoder").mkdir()
    with pytest.raises(SystemExit):
        ablation.main(["--folder", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "training.run base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

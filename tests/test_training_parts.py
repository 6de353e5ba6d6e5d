"""Parts of the training, each alone."""

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.releases.load import find
from hellomeme.releases.table import DEMO
from training.captured import BETAS, CapturedStep
from training.cpu import LONGEST, short_attentions
from training.muon import Muon
from training.stages.decoder import PatchDiscriminator
from training.stages.latent_error import LatentError
from training.stages.sketches import Sketches
from training.stages.start import scale_to_features, start_by_copying


def test_the_opinion_on_a_picture_teaches_the_picture_alone():
    torch.manual_seed(0)
    judge, pictures = PatchDiscriminator(), torch.rand(2, 3, 32, 32, requires_grad=True)
    torch.testing.assert_close(judge.opinion(pictures), judge(pictures))
    judge.opinion(pictures).mean().backward()
    assert pictures.grad.any() and all(p.grad is None for p in judge.parameters())


def test_short_attentions_are_the_fused_ones_in_bfloat16():
    fused = F.scaled_dot_product_attention
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, 40, 16, dtype=torch.bfloat16) for _ in range(3)]
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            F, "scaled_dot_product_attention", lambda *x, **more: calls.append(x) or fused(*x, **more)
        )
        counting = F.scaled_dot_product_attention
        with short_attentions():
            here = F.scaled_dot_product_attention(*tensors)
            assert not calls, "the fused kernel is passed by"
            F.scaled_dot_product_attention(*(x.float() for x in tensors))
            F.scaled_dot_product_attention(*tensors, is_causal=True)
            F.scaled_dot_product_attention(*(x.repeat(1, 1, LONGEST // 40 + 1, 1) for x in tensors))
            assert len(calls) == 3, "other precisions, masks and long sequences go to it"
        assert F.scaled_dot_product_attention is counting
        with pytest.raises(KeyError), short_attentions():
            raise KeyError
        assert F.scaled_dot_product_attention is counting
    exact = fused(*(x.float() for x in tensors))
    torch.testing.assert_close(here.float(), exact, rtol=0.05, atol=0.02)


def test_copying_is_where_the_reference_attention_starts():
    """Before training, the query of row position i scores the reference's position i, or its neighbour,
    highest."""
    torch.manual_seed(0)
    adapter, side = HMReferenceAdapter(block_out_channels=(64, 96, 128, 128), num_attention_heads=4), 16
    start_by_copying(adapter, side)
    module = adapter.module_at("up_3")
    table = module.norm(module.pos_embed.pe[0])
    queries = module.attn1.to_q(table[:side])
    keys = module.attn1.to_k(table[side : 2 * side])
    assert ((queries @ keys.T).argmax(1) - torch.arange(side)).abs().max() <= 1


def test_the_bundled_model_is_loaded_as_it_was_trained():
    row, folder = find("demo"), find(str(DEMO))
    for name in ("reference_control", "size", "condition_size", "face_basis"):
        assert getattr(row, name) == getattr(folder, name), name


def test_sketches_are_least_where_features_hold_the_picture():
    """Features that are the picture itself, at a place of its size, can be read without an error."""
    torch.manual_seed(0)
    latents, sketches = torch.randn(2, 4, 8, 8), Sketches({"up_1": 16, "up_3": 4}, 4)
    features = {"up_1": torch.randn(2, 16, 2, 2), "up_3": latents}
    assert sketches(features, latents).shape == (2,)
    small = F.adaptive_avg_pool2d(latents, 4)
    perfect = {"up_1": F.pixel_unshuffle(small, 2), "up_3": latents}
    for head in sketches.heads.values():
        head[0] = torch.nn.Identity()
        torch.nn.init.zeros_(head[1].bias)
    torch.nn.init.eye_(sketches.heads["up_1"][1].weight)
    copies = torch.eye(4).repeat_interleave(4, 0)  # each channel in all four positions
    sketches.heads["up_3"][1].weight.data.copy_(copies)
    assert sketches(perfect, latents).abs().max() < 1e-10 < sketches(features, latents).min()


@torch.no_grad()
def test_what_a_reference_attention_gives_is_scaled_to_the_features():
    torch.manual_seed(0)
    adapter = HMReferenceAdapter(block_out_channels=(64, 96, 128, 128), num_attention_heads=4)
    start_by_copying(adapter, 16)
    spreads = {"down_0": 3.0, "mid": 12.0, "up_0": 5.0}  # v1 has no reference attention at up_0
    features = {place: spread * torch.randn(2, 128, 8, 8) for place, spread in spreads.items()}
    outputs = {
        place: adapter.module_at(place).attn2.to_out[0].weight for place in ("down_0", "down_1", "mid")
    }
    before = {place: weight.std().item() for place, weight in outputs.items()}
    scale_to_features(adapter, features)
    for place, spread in (("down_0", 3), ("down_1", 1), ("mid", 12)):
        assert outputs[place].std().item() == pytest.approx(spread * before[place], rel=0.02), place


def test_muon_is_that_of_torch_for_a_matrix_and_leaves_the_rest_to_adamw():
    torch.manual_seed(0)
    start = {"matrix": torch.randn(40, 64), "bias": torch.randn(64), "narrow": torch.randn(8, 64)}
    ours, theirs = ({name: torch.nn.Parameter(x.clone()) for name, x in start.items()} for _ in range(2))
    options = dict(lr=0.01, weight_decay=0.1)
    rest = [theirs["bias"], theirs["narrow"]]
    optimizers = (
        Muon(ours.values(), **options),
        torch.optim.Muon([theirs["matrix"]], adjust_lr_fn="match_rms_adamw", **options),
        torch.optim.AdamW(rest, **options),
    )
    for step in range(3):
        for parameters in (ours, theirs):
            for name, p in parameters.items():
                p.grad = torch.sin((step + 17) * start[name])
        for optimizer in optimizers:
            optimizer.step()
    for name, p in ours.items():
        moved = (theirs[name] - start[name]).norm()
        assert (p - theirs[name]).norm() < 0.05 * moved and p.grad is not None, name  # in bfloat16


def test_muon_takes_a_convolution_as_a_matrix():
    """As it lies in memory for convolutions in bfloat16, taller or wider."""
    for shape in ((40, 4, 3, 3), (40, 8, 3, 3)):
        torch.manual_seed(0)
        convolution = torch.nn.Parameter(torch.randn(shape).to(memory_format=torch.channels_last))
        matrix = torch.nn.Parameter(convolution.detach().flatten(1).clone())
        optimizer = Muon([convolution, matrix], lr=0.01)
        convolution.grad = torch.randn_like(convolution)
        matrix.grad = convolution.grad.flatten(1).clone()
        optimizer.step()
        torch.testing.assert_close(convolution.flatten(1), matrix)


def test_muon_follows_the_learning_rate_of_a_schedule():
    """accelerate puts other groups in the place of those that the optimizer was made with."""
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(40, 64))
    start, accelerated = matrix.detach().clone(), Accelerator(cpu=True).prepare(Muon([matrix], lr=1.0))
    for group in accelerated.param_groups:
        group["lr"] = 1e-6
    matrix.grad = torch.randn_like(matrix)
    accelerated.step()
    assert 0 < (matrix - start).abs().max() < 1e-4


@torch.no_grad()
def test_what_is_fine_counts_in_the_error_of_latents():
    """A channel of a tenth of the variance counts for more than a tenth, along whatever axes it lies."""
    torch.manual_seed(0)
    spreads, turn = torch.tensor([1.0, 1.0, 0.1**0.5]), torch.linalg.qr(torch.randn(3, 3))[0]
    latents = torch.einsum("ncxy,cd->ndxy", torch.randn(200, 3, 8, 8) * spreads[:, None, None], turn)
    error = LatentError(latents)
    steps = [axis[:, None, None].expand(1, 3, 8, 8) for axis in turn]
    large, other, fine = (error(latents[:1] + step, latents[:1]).sum(1).mean().item() for step in steps)
    assert large == pytest.approx(other, rel=0.3) and 3 < fine / large < 10
    assert error(latents, latents).max() == 0


DEVICES = (
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
)


def some_layers(device: str = "cpu") -> torch.nn.Sequential:
    """Matrices wider and taller than their other side, two of one shape, and what is no matrix."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(6, 40, 3), torch.nn.GroupNorm(4, 40), torch.nn.SiLU(), torch.nn.Conv2d(40, 64, 1)
    layers += torch.nn.Conv2d(64, 64, 1), torch.nn.Conv2d(64, 64, 1), torch.nn.Conv2d(64, 6, 1)
    return torch.nn.Sequential(*layers).to(device, memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
def test_a_captured_step_is_one_of_muon_and_adamw(device):
    ours, theirs = some_layers(device), some_layers(device)
    x = torch.randn(2, 6, 8, 8).to(device)
    step = CapturedStep(dict(ours.named_parameters()), lambda: 99 * ours(x).square().mean(), average=0.15)
    optimizer = Muon(theirs.parameters(), lr=1.0, betas=BETAS, weight_decay=1e-3)
    passed = [{name: p.detach().clone() for name, p in theirs.named_parameters()}]
    for learning_rate in (0.02, 0.01, 0.01):
        x.copy_(torch.randn(2, 6, 8, 8))  # the next batch, where the last one was
        step.step(learning_rate)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.zero_grad()
        loss = 99 * theirs(x).square().mean()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0) > 2
        optimizer.step()
        torch.testing.assert_close(step.loss, loss.detach(), rtol=0.01, atol=0.01)
        passed.append({name: p.detach().clone() for name, p in theirs.named_parameters()})
        # Rounded to bfloat16, gradients that differ by a hair have other small directions
        close = 0.03 if len(passed) == 2 else 0.25
        for name, p in ours.named_parameters():
            assert (p - passed[-1][name]).norm() < close * (passed[-1][name] - passed[0][name]).norm(), name
    for name in passed[0]:
        moved = (passed[-1][name] - passed[0][name]).norm()
        average = passed[0][name]
        for decay, values in zip((1 / 10, 0.15, 0.15), passed[1:], strict=True):
            average = average.lerp(values[name], 1 - decay)
        assert (step.averages()[name] - average).norm() < 0.25 * moved, name
    step.use_average()
    shown = {name: p.detach().clone() for name, p in ours.named_parameters()}
    assert all(torch.equal(shown[name], average) for name, average in step.averages().items())
    trained = ours[0].weight.detach().clone()
    step.use_average(False)
    last = passed[-1]["0.weight"]
    assert (ours[0].weight - last).norm() < 0.5 * (trained - last).norm()


@pytest.mark.parametrize("device", DEVICES)
def test_every_captured_step_draws_noise_of_its_own(device):
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    step = CapturedStep({"weight": weight}, lambda: (weight * torch.randn_like(weight)).square().sum(), 0.9)
    losses = set()
    for _ in range(5):
        step.step(0.0)
        losses.add(step.loss.item())
    assert len(losses) == 5


def test_a_captured_step_keeps_more_digits_than_its_parameters():
    """Steps too small for bfloat16 add up."""
    layers = some_layers().to(torch.bfloat16)
    x = torch.randn(2, 6, 8, 8, dtype=torch.bfloat16)
    before = layers[0].weight.detach().clone()
    step = CapturedStep(dict(layers.named_parameters()), lambda: layers(x).float().square().mean(), 0.9)
    step.step(1e-5)
    assert (layers[0].weight != before).float().mean() < 0.1  # those near 0 alone
    for _ in range(400):
        step.step(1e-5)
    assert (layers[0].weight != before).float().mean() > 0.5


def test_parameters_without_a_gradient_stay_as_they_are():
    layers = some_layers()
    layers.spare = torch.nn.Linear(40, 40)
    before = layers.spare.weight.detach().clone()
    step = CapturedStep(
        dict(layers.named_parameters()), lambda: layers[0](torch.ones(1, 6, 4, 4)).square().mean(), 0.9
    )
    step.step(0.1)
    for weight in (layers.spare.weight, step.averages()["spare.weight"]):
        assert torch.equal(weight, before)

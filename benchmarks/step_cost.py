"""A denoising step at Stable Diffusion 1.5's size against one of diffusers' UNet alone:
`python benchmarks/step_cost.py [--dtypes float32 bfloat16] [--side 512]`.

Random weights, guidance on (a batch of two). The steps take turns, so that what else the machine does falls
on all of them: the median of the ratios counts, and their range stands beside it. Seconds are CPU time of all
threads, or wall clock on a GPU, where diffusers' UNet and the blocks of our step are also compiled.

Not timed: control nets and the reference, which a picture needs once. From the steps follows what a picture
of 25 steps costs where deep features are reused.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence

import torch
from common import machine, seconds
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

from hellomeme.acceleration import OneDnnLinear, use_onednn
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.attention import Knitting
from hellomeme.models.deep_features import DeepFeatures
from hellomeme.models.unet import HMDenoisingNet, HMReferenceNet
from hellomeme.releases.load import choose_device

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--dtypes", nargs="+", help="default: float16 on a GPU, else float32 and bfloat16")
parser.add_argument("--side", type=int, default=512, help="of the picture, in px")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--onednn", action="store_true", help="also with linear layers through oneDNN")
parser.add_argument("--eager", action="store_true", help="on a GPU: nothing compiled")
parser.add_argument("--device")
options = parser.parse_args()

STEPS = 25  # of a picture
PLAIN, WHOLE, REUSED = "diffusers' UNet", "our step", "our step, deep features reused"
COMPILED, OURS_COMPILED = "diffusers' UNet, compiled", "our step, its blocks compiled"
ONEDNN = "our step, linear layers through oneDNN"  # see `mkl_is_slow`
device = choose_device(options.device)
on_gpu = device.type == "cuda"
dtypes = options.dtypes or (["float16"] if on_gpu else ["float32", "bfloat16"])


@torch.inference_mode()
def steps(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """What takes turns: a step of each kind, by its name."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(device, dtype)

    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).to(device, dtype).eval()
    adapter = HMReferenceAdapter().to(device, dtype).eval()
    net, deep = HMDenoisingNet(unet, adapter), DeepFeatures(10**9)
    latents, text = random(2, 4, 1, options.side // 8, options.side // 8), random(2, 77, 768)
    features = HMReferenceNet(unet)(latents[:, :, 0], text)
    # Control maps at the places of v1
    maps = {
        place.replace("down", "down2"): random(*x.shape).unsqueeze(2)
        for place, x in features.items()
        if place.startswith("down")
    }
    given = {"reference": adapter.prepare(features), "control": maps}
    net(latents, 500, text, **given, deep=deep)  # the call that keeps deep features
    ways = {
        PLAIN: lambda: unet(latents[:, :, 0], 500, text),
        WHOLE: lambda: net(latents, 500, text, **given),
        REUSED: lambda: net(latents, 500, text, **given, deep=deep),
    }
    if on_gpu:
        net.to(memory_format=torch.channels_last)  # as `use_fastest_layout` does
        if options.eager:
            return ways
        ways |= compiled(net, lambda: net(latents, 500, text, **given), (latents[:, :, 0], 500, text))
    elif options.onednn and dtype == torch.float32:
        ways[ONEDNN] = lambda: with_onednn(net, ways[WHOLE])
    return ways


def with_onednn(net: torch.nn.Module, step: Callable[[], object]) -> None:
    """The step with other linear layers than before and after."""
    use_onednn(net)
    step()
    for layer in net.modules():
        if type(layer) is OneDnnLinear:
            layer.__class__ = torch.nn.Linear


def compiled(net: HMDenoisingNet, step: Callable[[], object], given: tuple) -> dict[str, Callable]:
    """The same steps by a copy of the networks that is compiled."""
    unet = torch.compile(copy.deepcopy(net.unet))
    blocks = [block for block in net.modules() if isinstance(block, (BasicTransformerBlock, Knitting))]
    calls = [torch.compile(block.forward) for block in blocks]

    def ours() -> None:
        for block, call in zip(blocks, calls, strict=True):
            block.forward = call
        step()
        for block in blocks:
            del block.forward

    return {COMPILED: lambda: unet(*given), OURS_COMPILED: ours}


def report(name: str, times: Sequence[float], base: Sequence[float]) -> None:
    ratios = [one / other for one, other in zip(times, base, strict=True)]
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{name:<44}{statistics.median(times):8.3f} s {statistics.median(ratios):8.3f} ({spread})")


ways = {(kind, name): step for kind in dtypes for name, step in steps(getattr(torch, kind)).items()}
for step in ways.values():
    seconds(step, device)
rounds = [{way: seconds(step, device) for way, step in ways.items()} for _ in range(options.rounds)]
taken = {way: [one[way] for one in rounds] for way in ways}

print(f"{machine()}; {options.side} px, {options.rounds} rounds")
first = dtypes[0]
for kind in dtypes:
    plain, whole, reused = (taken[kind, name] for name in (PLAIN, WHOLE, REUSED))
    print(f"\n{kind}, against {PLAIN} in {kind}")
    for name in (PLAIN, WHOLE, REUSED, ONEDNN, COMPILED, OURS_COMPILED):
        if (kind, name) in taken:
            report(name, taken[kind, name], plain)
    if (kind, ONEDNN) in taken:
        report(f"{ONEDNN}, against {WHOLE}", taken[kind, ONEDNN], whole)
    if (kind, COMPILED) in taken:
        report(
            f"{OURS_COMPILED}, against the compiled UNet", taken[kind, OURS_COMPILED], taken[kind, COMPILED]
        )
    for every in (2, 3, 5):
        full = -(-STEPS // every)
        costs = [full * one + (STEPS - full) * other for one, other in zip(whole, reused, strict=True)]
        report(f"{STEPS} steps, deep features at every {every}", costs, [STEPS * time for time in plain])
    if kind != first:
        report(f"{WHOLE}, against {WHOLE} in {first}", whole, taken[first, WHOLE])
if not on_gpu:
    print("\nOn a GPU, and compiled: not measured, there is none here")

"""What pictures and clips take of a GPU's memory, computed: `python benchmarks/gpu_memory.py [RELEASE ...]`.

Nothing is computed with: all networks are on torch's meta device, in the size and type of the releases, and
the bytes of the tensors that live at the same time are added up. So attention counts as fused, and no GPU is
needed; what CUDA takes beside tensors is not in it (`MARGIN` of hellomeme/memory_choice.py stands for that).
"""

import argparse
import weakref

import torch
from full_size import denoiser, pipeline_of
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from hellomeme.memory_choice import frame_bytes, networks_of, picture_bytes
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.placement import size_of
from hellomeme.releases.table import RELEASES
from hellomeme.sampling.windows import WINDOW

SD15 = [row for row in RELEASES if row.has_styles]
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("releases", nargs="*", default=[row.name for row in SD15])
options = parser.parse_args()


class FusedAttention(TorchFunctionMode):
    """Attention without its matrix of weights, as on a GPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


class Living(TorchDispatchMode):
    """Adds up the bytes of the tensors made in this context that live at the same time. peak: their most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)}
        for tensor in tree_iter(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is None or storage._cdata in given or storage in self.known:
                continue
            self.known.add(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _forget(self, size):
        self.now -= size


def peak(work) -> float:
    """The most bytes that the tensors of `work` take."""
    with FusedAttention(), Living() as living:
        work()
    return living.peak


def largest(pipeline: HelloMemePipeline, frames: int = 1, unet=None, low: bool = False) -> float:
    """The most that the parts of a run take beside the weights, with what is kept from one to the next."""

    def draw():
        predict = denoiser(pipeline, frames, unet, low)
        predict(torch.randn(1, 4, frames, 64, 64), torch.tensor(500))
        del predict
        pipeline.vae.decode(torch.randn(1, 4, 64, 64))

    return peak(draw)


print("GB, computed from the tensors' sizes in float16 at 512 px, not measured on a GPU\n")
print("| release | weights | with clips | picture | picture, offload | clip | clip, offload | clip, least |")
print("|---|---|---|---|---|---|---|---|")
torch.set_default_dtype(torch.float16)
for row in (row for row in SD15 if row.name in options.releases):
    with torch.device("meta"), torch.inference_mode():
        pipeline = pipeline_of(row)
        size = {name: size_of(part) for name, part in pipeline.components.items() if part is not None}
        every = sum(map(size_of, networks_of(pipeline)))
        clips = size.get("motion_adapter", 0) + size.get("hm_motion", 0)
        drawing = size["unet"] + size["hm_reference"]
        picture = largest(pipeline)
        moving = pipeline.motion_unet() if row.motion else None
        window = largest(pipeline, WINDOW, moving)
        halves = largest(pipeline, WINDOW // 2, moving, True)
        estimated = 2 * WINDOW * frame_bytes(pipeline), picture_bytes(pipeline)
    figures = [
        every - clips,
        every,
        every - clips + picture,
        drawing + picture,
        every + window,
        drawing + clips + window,
        drawing + clips + halves,
    ]
    print(f"| {row.name} | {' | '.join(f'{figure / 1e9:.2f}' for figure in figures)} |", flush=True)
    print(
        f"  window {window / 1e9:.2f}, as estimated {estimated[0] / 1e9:.2f}; "
        f"picture {picture / 1e9:.2f}, as estimated {estimated[1] / 1e9:.2f}"
    )

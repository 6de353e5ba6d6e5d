"""What makes the networks of a pipeline faster where they are, without changing what they compute."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from .errors import HelloMemeError
from .threads import is_small

if TYPE_CHECKING:
    from .pipeline import HelloMemePipeline

SHAPES = 64  # of blocks of one class: widths, sizes, and pictures as well as clips; torch stops at 8


class OneDnnLinear(nn.Linear):
    """A linear layer through oneDNN in float32, where torch asks MKL. Without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear`, to rounding."""
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        weight = self.weight  # once: differences of a LoRA may be added to it at each look
        if weight.dtype != torch.float32:
            return super().forward(x)
        return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")


def accelerate(pipeline: HelloMemePipeline) -> None:
    """Makes the networks of a pipeline faster, in place; to be called again when others are put into it.

    In float32 on a CPU where MKL keeps from AVX-512, the linear layers of large networks go through oneDNN.
    With `pipeline.compiled` the blocks that are repeated are compiled at their first use.
    """
    in_float32 = pipeline.running_device.type == "cpu" and pipeline.unet.dtype == torch.float32
    if in_float32 and mkl_is_slow() and not is_small(pipeline):
        for name in ("unet", "reference_unet", "hm_reference", "motion_adapter", "hm_motion"):
            if (network := getattr(pipeline, name)) is not None:
                use_onednn(network)
    if pipeline.compiled:
        compile_blocks(pipeline)


def mkl_is_slow() -> bool:
    """Whether the processor has AVX-512 and is none of Intel's: MKL then takes its path for AVX2, at half the
    speed. oneDNN asks for the instructions only."""
    facts = torch.cpu.get_capabilities()
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and facts.get("avx512_f", False) and "Intel" not in facts.get("cpu_name", "")


def use_onednn(network: nn.Module) -> None:
    """Lets the linear layers of a network go through oneDNN, on the weights as they are: LoRA can be loaded
    and removed as before."""
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear


def check_compiler(device: torch.device) -> None:
    """Raises HelloMemeError where torch.compile lacks what it needs for a device."""
    lacks = None
    if device.type == "cuda" and find_spec("triton") is None:
        lacks = "triton (pip install triton; on Windows triton-windows)"
    compilers = ["cl"] if sys.platform == "win32" else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, filter(None, [os.environ.get("CXX"), *compilers]))):
        lacks = "a C++ compiler (apt-get install g++, or set CXX)"
    if lacks is not None:
        raise HelloMemeError(f"--compile needs {lacks}: install it, or leave --compile out.")


def compile_blocks(pipeline: HelloMemePipeline, **options: Any) -> None:
    """Lets torch compile the repeated blocks of a pipeline's networks, at their first use and for each shape.

    options: of torch.compile. Blocks that are compiled already stay as they are. LoRA that are loaded later
    are compiled in at the next use.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, SHAPES)
    for block in repeated_blocks(pipeline):
        if block._compiled_call_impl is None:
            block.compile(**options)


def repeated_blocks(pipeline: HelloMemePipeline) -> Iterator[nn.Module]:
    """The transformer blocks of the UNets and of AnimateDiff, and the reference attentions."""
    for network in (pipeline.unet, pipeline.reference_unet, pipeline.motion_adapter):
        if network is not None:
            yield from (part for part in network.modules() if isinstance(part, BasicTransformerBlock))
    yield from pipeline.hm_reference.attentions()

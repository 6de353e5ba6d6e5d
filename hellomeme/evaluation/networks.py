"""The networks that the measures need, from the libraries that publish them.

A network that cannot be had raises `Unavailable`, with the reason as a sentence: the other measures do
without it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")
EXTRA = 'install the extra "evaluate" (in the clone: pip install ".[evaluate]")'
TIMEOUT = 30  # s without an answer, after which a download is given up
I3D = "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt"


class Unavailable(Exception):
    """A measure cannot be had. The message is a sentence."""


def fid(device: Any) -> Any:
    """torchmetrics' FID over the Inception network of torch-fidelity; takes (N, 3, H, W) uint8."""

    def build() -> Any:
        from torchmetrics.image.fid import FrechetInceptionDistance

        return FrechetInceptionDistance(feature=2048, reset_real_features=False).to(device)

    return obtain(build, ("torch_fidelity",), _hub_folder() / "weights-inception-2015-12-05-6726825d.pth")


def lpips(device: Any) -> Any:
    """torchmetrics' LPIPS over AlexNet: takes two batches (N, 3, H, W) in [0, 1], gives (N,)."""

    def build() -> Any:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric = LearnedPerceptualImagePatchSimilarity("alex", reduction="none", normalize=True).to(device)
        return lambda pictures, truth: metric(pictures, truth).reshape(-1)

    return obtain(build, ("torchvision",), _hub_folder() / "alexnet-owt-7be5be79.pth")


def fvd(device: Any) -> Any:
    """cd-fvd's FVD over I3D; takes (N, T, H, W, 3) uint8 arrays."""
    weights = _hub_folder() / "i3d_pretrained_400.pt"

    def build() -> Any:
        import torch

        if not weights.is_file():
            # By ourselves: cd-fvd would leave half a file behind after a failure, and read it the next time.
            weights.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(I3D, str(weights), progress=False)
        cdfvd = importlib.import_module("cdfvd.fvd").cdfvd
        return cdfvd("i3d", n_real="full", n_fake="full", ckpt_path=str(weights), device=str(device))

    return obtain(build, ("torchvision", "cdfvd.fvd"), weights)


def facenet(device: Any) -> Any:
    """facenet-pytorch's network, trained on VGGFace2; takes faces (N, 3, 160, 160) in [-1, 1] to codes of
    length 1, (N, 512)."""

    def build() -> Any:
        network = importlib.import_module("facenet_pytorch").InceptionResnetV1
        return network(pretrained="vggface2").eval().to(device)

    folder = Path(os.path.dirname(_hub_folder())).parent / "checkpoints"
    return obtain(build, ("torchvision", "facenet_pytorch"), folder / "20180402-114759-vggface2.pt")


def obtain(build: Callable[[], T], modules: tuple[str, ...] = (), weights: Path | None = None) -> T:
    """What `build` makes; `Unavailable` without its modules, or if it cannot have its weights.

    weights: where the library keeps them; with HF_HUB_OFFLINE, nothing else is tried. None: it has none.
    """
    from huggingface_hub import constants

    for module in ("torchmetrics", *modules):
        try:
            importlib.import_module(module)
        except (ImportError, RuntimeError, OSError) as error:  # torchvision for another torch: RuntimeError
            name = module.partition(".")[0]
            raise Unavailable(f"{name} is missing or does not work here: {EXTRA}.") from error
    if weights is None:
        return build()
    if not weights.is_file() and constants.is_offline_mode():
        raise Unavailable(f"its weights, {weights}, are not on this computer, and HF_HUB_OFFLINE is set.")
    try:
        with _careful():
            return build()
    except Exception as error:  # the network, the disk, or a damaged file, in the words of five libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise Unavailable(f"its weights, {weights.name}, could not be had: {reason}.") from error


def _hub_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


@contextlib.contextmanager
def _careful() -> Iterator[None]:
    """Weights are read without unpickling objects, nobody is waited for without end, and nothing is printed
    among our own output."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with (
            mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"),
            contextlib.redirect_stdout(sys.stderr),
        ):
            yield
    finally:
        socket.setdefaulttimeout(before)

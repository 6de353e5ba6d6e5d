"""The motion module: AnimateDiff's attention across frames, inserted into the blocks of a stock UNet."""

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from ..errors import HelloMemeError
from .knitted_motion import KnittedMotion

DOES_NOT_FIT = "The motion module does not fit the base model ({}): choose the one of the same release."


def with_motion(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """The UNet with the motion modules of AnimateDiff in its blocks: it looks across frames.

    It shares the modules of both: it costs no memory, and a LoRA loaded into `unet` applies here too.
    Raises HelloMemeError where the adapter was made for a UNet of another shape.
    """
    try:
        with torch.device("meta"):  # structure only, the modules are assigned below
            moving = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
        if list(adapter.config.block_out_channels) != list(unet.config.block_out_channels):
            raise ValueError("other widths")
    except ValueError as error:
        raise HelloMemeError(DOES_NOT_FIT.format(error)) from error

    def blocks(net) -> list:
        return [*net.down_blocks, net.mid_block, *net.up_blocks]

    for part in ("conv_in", "time_proj", "time_embedding", "conv_norm_out", "conv_act", "conv_out"):
        setattr(moving, part, getattr(unet, part))
    for new, *sources in zip(blocks(moving), blocks(unet), blocks(adapter), strict=True):
        for source in filter(None, sources):  # an adapter may have no middle block
            for name, child in source.named_children():
                setattr(new, name, child)
    return moving.eval()


def check_fit(
    unet: UNet2DConditionModel, adapter: MotionAdapter | None, knitted: KnittedMotion | None
) -> None:
    """Raises HelloMemeError where one of the motion networks was made for a UNet of another shape."""
    if adapter is not None:
        with_motion(unet, adapter)
    if knitted is not None and not knitted.fits(unet.config.block_out_channels):
        raise HelloMemeError(DOES_NOT_FIT.format("other widths"))

"""The forward over the stock UNet: the same where nothing is inserted, trainable where something is."""

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from hellomeme.errors import HelloMemeError
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.control import HMControlNet, HMV2ControlNet2
from hellomeme.models.unet import HMDenoisingNet, HMReferenceNet, adapted_unet_forward

WIDTHS = (8, 16, 16, 16)
TEXT_DIM = 12


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
        norm_num_groups=4,
    ).requires_grad_(False)


def adapter(**kwargs):
    return HMReferenceAdapter(block_out_channels=WIDTHS, num_attention_heads=2, **kwargs)


def inputs(batch=2, frames=1, side=16):
    return (
        torch.randn(batch, 4, frames, side, side),
        torch.tensor([957.375, 20.0])[:batch],
        torch.randn(batch, 5, 12),
    )


@pytest.mark.parametrize("side", [16, 12])  # 12 halves to 6, 3, 2: the way up must come back to 3
def test_with_nothing_inserted_it_is_the_stock_unet(unet, side):
    sample, timestep, text = inputs(side=side)
    stock = unet(sample.squeeze(2), timestep, text).sample
    ours = adapted_unet_forward(unet, sample, timestep, text).prediction
    torch.testing.assert_close(ours.squeeze(2), stock)


@pytest.mark.parametrize("mid", [True, False])
def test_with_nothing_inserted_it_is_the_stock_motion_unet(unet, mid):
    motion = MotionAdapter(
        block_out_channels=WIDTHS,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        use_motion_mid_block=mid,
    )
    for parameter in motion.parameters():  # a fresh motion module adds nothing
        torch.nn.init.normal_(parameter, std=0.1)
    unet = UNetMotionModel.from_unet2d(unet, motion)
    sample, timestep, text = inputs(frames=3)
    stock = unet(sample, timestep, text.repeat_interleave(3, dim=0)).sample
    torch.testing.assert_close(adapted_unet_forward(unet, sample, timestep, text).prediction, stock)


def test_frames_of_an_image_unet_do_not_see_each_other(unet):
    sample, timestep, text = inputs(frames=2)
    net = HMDenoisingNet(unet, adapter())
    reference = net.reference_adapter.prepare(HMReferenceNet(unet)(torch.randn(2, 4, 16, 16), text))
    for steps in (timestep, torch.tensor([[900.0, 3.0], [41.625, 500.0]])):
        # One for both frames, one for each
        both = net(sample, steps, text, reference)
        for t in range(2):
            alone = net(sample[:, :, t : t + 1], steps if steps.dim() == 1 else steps[:, t], text, reference)
            torch.testing.assert_close(both[:, :, t : t + 1], alone)


@pytest.mark.parametrize(
    ("version", "places"),
    [("v1", {"down_0", "down_1", "down_2", "mid", "up_1", "up_2", "up_3"}), ("v2", {"up_1", "up_2", "up_3"})],
)
def test_places_of_the_adapter(unet, version, places):
    features = HMReferenceNet(unet)(torch.randn(1, 4, 16, 16), torch.randn(1, 5, TEXT_DIM))
    assert len(features) == 9
    assert adapter(version=version).prepare(features).keys() == places


def test_each_part_changes_the_prediction(unet):
    sample, timestep, text = inputs()
    net = HMDenoisingNet(unet, adapter())
    reference = net.reference_adapter.prepare(HMReferenceNet(unet)(torch.randn(2, 4, 16, 16), text))
    plain = net(sample, timestep, text)
    for place in reference:
        assert not torch.allclose(net(sample, timestep, text, {place: reference[place]}), plain), place
    sides = {"down_0": (8, 8), "down2_1": (16, 4), "up_v2_0": (16, 2), "up2_v2_3": (16, 16)}
    for key, (width, side) in sides.items():
        control = {key: torch.randn(2, width, 1, side, side)}
        assert not torch.allclose(net(sample, timestep, text, None, control), plain), key


def test_gradients_reach_the_adapters_with_the_unet_frozen(unet):
    torch.manual_seed(0)
    sample, timestep, text = inputs(frames=2)
    pose = torch.rand(2, 3, 2, 64, 64) * 2 - 1
    net = HMDenoisingNet(unet, adapter())
    down = HMControlNet(scale_factor=4, cross_attention_dim=TEXT_DIM, block_out_channels=(4, *WIDTHS[:3]))
    up = HMV2ControlNet2(scale_factor=2, cross_attention_dim=TEXT_DIM, block_out_channels=(8, 16, 16, 16, 16))
    control = down(pose, torch.rand(2, 2, 51), torch.randn(2, 2, 3, 1024)) | up(pose, torch.randn(2, 2, 7))
    reference = net.reference_adapter.prepare(HMReferenceNet(unet)(torch.randn(2, 4, 16, 16), text))
    net(sample, timestep, text, reference, control).square().mean().backward()

    assert all(parameter.grad is None for parameter in unet.parameters())
    for part in (net.reference_adapter, down, up):
        for name, parameter in part.named_parameters():
            if name.startswith("reference_modules_down.3."):  # in the released files, without a place
                assert parameter.grad is None
            else:
                assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_the_denoiser_can_be_exported(unet):
    sample, _, text = inputs()
    net = HMDenoisingNet(unet, adapter()).requires_grad_(False)
    reference = net.reference_adapter.prepare(HMReferenceNet(unet)(torch.randn(2, 4, 16, 16), text))
    arguments = (sample, torch.tensor(957.375), text, reference, {"down2_0": torch.randn(2, 8, 1, 8, 8)})
    exported = torch.export.export(net, arguments)
    torch.testing.assert_close(exported.module()(*arguments), net(*arguments))


def test_other_widths_are_refused(unet):
    with pytest.raises(HelloMemeError, match=r"widths \[8, 16, 16, 16\].*made for \[8, 16, 16, 32\]"):
        HMDenoisingNet(unet, HMReferenceAdapter(block_out_channels=(8, 16, 16, 32), num_attention_heads=2))

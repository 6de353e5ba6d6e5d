"""Deep features that are reused between steps, and guidance that ends before the last step."""

import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter
from test_pipeline import conditions, draw, pipeline, reference  # noqa: F401
from torch import nn

from hellomeme.models.deep_features import DeepFeatures
from hellomeme.models.unet import HMDenoisingNet
from hellomeme.pipeline import Conditions
from hellomeme.reenactor import Reenactor
from hellomeme.sampling.image import last_guided, with_timesteps
from hellomeme.sampling.windows import sample_windows
from hellomeme.settings import Settings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def calls(pipeline):
    """The size of the batch of each call: `deep` of the UNet's mid block, `all` of its first layer."""
    heard = {"deep": [], "all": []}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, of=of: heard[of].append(len(given[0])))
        for layer, of in ((pipeline.unet.mid_block, "deep"), (pipeline.unet.conv_in, "all"))
    ]
    yield heard
    for hook in hooks:
        hook.remove()


def test_deep_blocks_run_at_every_third_step(pipeline, reference, calls):
    exact = draw(pipeline, reference, num_inference_steps=7)
    assert calls == {"deep": [2] * 7, "all": [2] * 7}
    calls["deep"].clear(), calls["all"].clear()
    reused = draw(pipeline, reference, num_inference_steps=7, reuse=3)
    assert calls == {"deep": [2] * 3, "all": [2] * 7}
    assert not torch.equal(reused, exact)
    assert torch.equal(
        draw(pipeline, reference, num_inference_steps=3, reuse=1),
        draw(pipeline, reference, num_inference_steps=3),
    )


@pytest.mark.parametrize("moving", [False, True])
def test_what_is_reused_is_exact_where_nothing_changed(pipeline, reference, moving):
    """The same latents and timestep again: the last layer alone gives what all of the UNet gave."""
    unet, frames = pipeline.unet, 3 if moving else 1
    if moving:
        pipeline.motion_adapter = MotionAdapter(
            block_out_channels=unet.config.block_out_channels,
            motion_layers_per_block=1,
            motion_num_attention_heads=4,
            motion_norm_num_groups=8,
            use_motion_mid_block=False,
        )
        for parameter in pipeline.motion_adapter.parameters():
            nn.init.normal_(parameter, std=0.1)
        unet = pipeline.motion_unet()
        pipeline.motion_adapter = None
    latents = torch.randn(2, 8, frames, 16, 16, generator=torch.Generator().manual_seed(0))
    text, net = pipeline.encode_prompt("a", "b"), HMDenoisingNet(unet, pipeline.hm_reference)
    deep, shown = DeepFeatures(2), Conditions(**conditions(frames))
    more = {"reference": reference.prepared, "control": pipeline.control_maps(shown, 2.0).batch()}
    with torch.no_grad():
        plain = net(latents, 500, text, **more)
        whole, alone = (net(latents, 500, text, **more, deep=deep) for _ in range(2))
        other = net(latents + 1, 400, text, **more, deep=deep)  # the third call: all of the UNet again
        torch.testing.assert_close(other, net(latents + 1, 400, text, **more))
    torch.testing.assert_close(whole, plain)
    torch.testing.assert_close(alone, plain)


def test_half_the_memory_draws_the_same(pipeline, reference):
    more = {"num_inference_steps": 5, "reuse": 2, "guidance_end": 0.6}
    one, other = (draw(pipeline, reference, low_memory=low, **more) for low in (False, True))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_guidance_ends(pipeline, reference, calls):
    ended = draw(pipeline, reference, num_inference_steps=5, guidance_end=0.6, guidance_scale=3.0)
    assert calls["all"] == [2, 2, 2, 1, 1]
    never = draw(pipeline, reference, num_inference_steps=2, guidance_end=0.0, guidance_scale=3.0)
    without = draw(pipeline, reference, num_inference_steps=2, guidance_scale=1.0)
    torch.testing.assert_close(never, without, atol=1e-4, rtol=0)
    assert not torch.equal(ended, draw(pipeline, reference, num_inference_steps=5, guidance_scale=3.0))
    # What was kept with guidance serves the steps without it
    calls["deep"].clear(), calls["all"].clear()
    draw(pipeline, reference, num_inference_steps=5, guidance_end=0.4, reuse=4)
    assert calls == {"deep": [2, 1], "all": [2, 2, 1, 1, 1]}


def test_the_timestep_at_which_guidance_ends(pipeline):
    timesteps = with_timesteps(pipeline.scheduler, 10).timesteps.tolist()
    ends = [last_guided(pipeline.scheduler, 10, share) for share in (0.0, 0.04, 0.3, 0.96, 1.0)]
    assert ends == [math.inf, math.inf, timesteps[2], None, None]


def test_a_window_has_one_denoiser_while_it_is_in_progress(pipeline):
    windows, living = [range(0, 4), range(2, 6), range(4, 8)], weakref.WeakSet()
    made, most = [], []

    class Denoiser:
        def __init__(self, frames):
            made.append(frames)
            living.add(self)

        def __call__(self, latents, timestep):
            most.append(len(living))
            return latents

    noise = torch.randn(8, 1, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    starts = iter([(None, one) for one in noise])
    list(sample_windows(Denoiser, pipeline.scheduler, starts, windows, 2))
    assert [list(frames) for frames in made] == [list(window) for window in windows]
    assert max(most) == 2 and len(most) == 6 and not living


def test_the_demo_draws_nearly_the_same_picture():
    reenactor = Reenactor.from_release("demo", device="cpu")
    reenactor.set_reference(EXAMPLES / "references" / "mila.png")
    exact, reused = (
        np.asarray(
            reenactor.image(EXAMPLES / "drivers" / "laugh.png", Settings(steps=25, reuse=reuse)).picture
        ).astype(float)
        for reuse in (1, 3)
    )
    error = np.square(exact - reused).mean()
    assert error > 0 and 10 * math.log10(255**2 / error) > 33

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler

from hellomeme.errors import HelloMemeError
from hellomeme.pipeline import Conditions, HelloMemePipeline
from hellomeme.releases.load import load
from hellomeme.sampling.image import Stopped, guided, sample


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return load(str(model_folder), device="cpu")[0]


@pytest.fixture(scope="module")
def reference(pipeline):
    picture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return pipeline.prepare_reference(pipeline.encode(picture))


def conditions(frames=1, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return {
        "condition": torch.rand(1, 3, frames, 32, 32, generator=generator) * 2 - 1,
        "drive_coeff": torch.rand(1, frames, 51, generator=generator),
    }


def draw(pipeline, reference, seed=0, **more):
    arguments = {"num_inference_steps": 2, "output_type": "pt", **conditions(), **more}
    return pipeline(reference, generator=torch.Generator().manual_seed(seed), **arguments).frames


def test_shapes_and_ranges(pipeline, reference):
    frames = draw(pipeline, reference)
    assert frames.shape == (1, 3, 1, 128, 128)
    assert 0 <= frames.min() and frames.max() <= 1 and frames.std() > 0.01
    pictures = pipeline(reference, **conditions(), num_inference_steps=1).frames
    assert [picture.size for picture in pictures] == [(128, 128)]
    output = pipeline(reference, **conditions(), num_inference_steps=1, output_type="latent")
    assert output.frames is None and output.latents.shape == (1, 8, 1, 16, 16)


def test_the_seed_decides_and_everything_else_counts(pipeline, reference):
    first = draw(pipeline, reference)
    assert torch.equal(first, draw(pipeline, reference))
    assert not torch.equal(first, draw(pipeline, reference, seed=1))
    pose, expression = conditions(seed=3).values()
    assert not torch.equal(first, draw(pipeline, reference, condition=pose))
    assert not torch.equal(first, draw(pipeline, reference, drive_coeff=expression))
    assert not torch.equal(first, draw(pipeline, reference, prompt="hat"))
    assert not torch.equal(first, draw(pipeline, reference, guidance_scale=3))
    other = pipeline.prepare_reference(reference.latents.flip(-1))
    assert not torch.equal(first, draw(pipeline, other))


def test_a_clip_is_its_frames(pipeline, reference):
    """Without a motion module each frame is drawn as a picture of its own: one sampler serves both."""
    clip = conditions(frames=3)
    noise = torch.randn(1, 8, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    frames = draw(pipeline, reference, noise=noise, **clip)
    assert frames.shape == (1, 3, 3, 128, 128)
    for t in range(3):
        one = {
            "condition": clip["condition"][:, :, t : t + 1],
            "drive_coeff": clip["drive_coeff"][:, t : t + 1],
        }
        alone = draw(pipeline, reference, noise=noise[:, :, t : t + 1], **one)
        torch.testing.assert_close(frames[:, :, t : t + 1], alone, atol=1e-4, rtol=0)


def test_guidance_of_one_is_the_positive_half(pipeline, reference):
    """A scale just above 1 runs both halves and must come out where the positive half alone does."""
    off, barely = (draw(pipeline, reference, guidance_scale=scale) for scale in (1.0, 1 + 1e-6))
    torch.testing.assert_close(off, barely, atol=1e-4, rtol=0)


def test_guidance_takes_negative_first():
    both = guided(lambda latents, timestep: torch.tensor([[1.0], [3.0]]), 1.5)
    assert both(torch.zeros(1, 1), torch.tensor(0)).item() == 1 + 1.5 * (3 - 1)


@pytest.mark.parametrize(
    "kind", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler]
)
def test_schedulers_can_be_exchanged(pipeline, reference, kind):
    own = pipeline.scheduler
    before = draw(pipeline, reference)
    pipeline.scheduler = kind.from_config(own.config, rescale_betas_zero_snr=False)
    try:
        frames = draw(pipeline, reference)
        assert torch.equal(frames, draw(pipeline, reference))  # also with the noise of an ancestral one
    finally:
        pipeline.scheduler = own
    assert frames.isfinite().all() and not torch.equal(frames, before)


def test_callback_sees_each_step_may_change_latents_and_may_stop(pipeline, reference):
    seen = []

    def note(pipe, step, timestep, tensors):
        seen.append((pipe is pipeline, step, int(timestep), tuple(tensors["latents"].shape)))

    draw(pipeline, reference, num_inference_steps=3, callback_on_step_end=note)
    assert [step for _, step, *_ in seen] == [0, 1, 2]
    assert all(own and shape == (1, 8, 1, 16, 16) for own, _, _, shape in seen)

    def empty(pipe, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])}

    arguments = {"callback_on_step_end": empty, "output_type": "latent", **conditions()}
    assert not pipeline(reference, num_inference_steps=2, **arguments).latents.any()

    def stop(*_):
        raise Stopped

    with pytest.raises(Stopped):
        draw(pipeline, reference, callback_on_step_end=stop)
    # Nothing is left over of a stopped run
    assert torch.equal(draw(pipeline, reference), draw(pipeline, reference))


def test_save_and_load_give_the_same_pipeline(pipeline, reference, tmp_path):
    pipeline.save_pretrained(tmp_path)
    assert {"unet", "vae", "hm_reference", "hm_control"} <= {path.name for path in tmp_path.iterdir()}
    again = HelloMemePipeline.from_pretrained(tmp_path)
    assert type(again.scheduler) is type(pipeline.scheduler) and again.hm_control2 is None
    prepared = again.prepare_reference(reference.latents)
    assert torch.equal(draw(again, prepared), draw(pipeline, reference))
    # What save_pretrained writes is itself a model folder for the loader of the releases.
    assert load(str(tmp_path), device="cpu")[0].expression_types == {"drive_coeff"}


def test_maps_of_several_control_nets_add_up(pipeline, reference):
    with torch.no_grad():
        one = pipeline.hm_control(*conditions().values())
    assert one.keys() < maps(pipeline).keys()  # the other net's maps are for other places
    pipeline.hm_control2 = pipeline.hm_control
    try:
        two = maps(pipeline)
    finally:
        pipeline.hm_control2 = None
    for key in one:
        assert torch.allclose(two[key][1:], 2 * one[key], atol=1e-4)


def maps(pipeline):
    return pipeline.control_maps(Conditions(**conditions()), 2.0).batch()


def test_the_expression_must_be_given(pipeline, reference):
    with pytest.raises(HelloMemeError, match="drive_coeff"):
        pipeline(reference, conditions()["condition"], num_inference_steps=1)


def test_posterior_is_drawn_before_the_noise(pipeline):
    """The order of the released pipelines: one generator, first the reference's latents, then the noise."""
    picture = torch.zeros(1, 3, 128, 128)
    generator = torch.Generator().manual_seed(4)
    drawn = pipeline.encode(picture, generator)
    mean = pipeline.encode(picture)
    expected = torch.randn(mean.shape, generator=torch.Generator().manual_seed(4))
    std = pipeline.vae.config.posterior_std * pipeline.vae.config.scaling_factor
    torch.testing.assert_close(drawn, mean + std * expected, atol=1e-5, rtol=0)


def test_sampler_leaves_the_scheduler_alone():
    scheduler = EulerDiscreteScheduler()
    noise = torch.randn(1, 4, 1, 4, 4)
    before = dict(vars(scheduler))
    sample(lambda latents, timestep: torch.zeros_like(latents), scheduler, noise, 3)
    assert scheduler._step_index is before["_step_index"] and scheduler.num_inference_steps is None


def test_sampler_finds_the_picture_an_exact_model_sees():
    """A model that knows the truth predicts noise = (latents - truth) / sigma: Euler then lands on the
    truth."""
    truth = torch.linspace(-1, 1, 16).view(1, 1, 1, 4, 4)
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    probe = EulerDiscreteScheduler.from_config(scheduler.config)
    probe.set_timesteps(5)
    sigmas = dict(zip(probe.timesteps.tolist(), probe.sigmas.tolist(), strict=False))

    def exact(scaled, timestep):
        sigma = sigmas[timestep.item()]
        return (scaled * (sigma**2 + 1) ** 0.5 - truth) / sigma

    result = sample(exact, scheduler, torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)), 5)
    torch.testing.assert_close(result, truth, atol=1e-4, rtol=0)

"""The page's events called as functions: fixtures."""

import photos
import pytest

from page import image_tab, state as states


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def state(model_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "STATE", states.State(str(model_folder), device="cpu"))
        yield states.STATE


@pytest.fixture(scope="module")
def toon_clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "driver.mp4")


def write_clip(path, *more):
    """A head that turns for four frames, and then more pictures."""
    from fractions import Fraction

    from hellomeme.io.ffmpeg import ClipWriter

    with ClipWriter(path, Fraction(12)) as writer:
        for picture in (*(photos.toon(5, yaw=4 * frame) for frame in range(4)), *more):
            writer.write(picture)
    return path


@pytest.fixture
def draw(state, pictures):
    """Calls the event of the button with files of `pictures`, as Gradio does."""

    def draw(driver="face.png", reference="reference.png", **changes):
        values = dict(
            expression=1,
            head=1,
            guidance=1,
            steps=2,
            seed=0,
            reference_face=None,
            driver_face=None,
            prompt="",
            negative_prompt="",
            paste=False,
            feather=0.5,
        )
        files = (name and str(pictures / name) for name in (reference, driver))
        return image_tab.make_image(state.release, *files, **values | changes)

    return draw


def events(page):
    return {
        fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn is not None
    }

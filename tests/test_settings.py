import dataclasses
import math

import pytest

from hellomeme.errors import HelloMemeError
from hellomeme.releases.table import RELEASES
from hellomeme.settings import MAX_SEED, Settings

NUMBERS = [field for field in dataclasses.fields(Settings) if field.metadata["kind"] is not str]


def test_defaults_stand_in_one_place():
    for field in dataclasses.fields(Settings):
        assert field.default == field.metadata["default"]
        assert field.metadata["label"] and field.metadata["help"]
    settings = Settings()
    assert (settings.expression, settings.head, settings.translation, settings.seed) == (1, 1, 0, 0)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_both_ends_are_allowed_and_nothing_beyond(field):
    low, high = field.metadata["min"], field.metadata["max"]
    for value in (low, high):
        assert getattr(Settings(**{field.name: value}), field.name) == value
    for value in (low - 1, high + 1, math.nan, math.inf, "1", True, [1]):
        with pytest.raises(
            HelloMemeError, match=f"^{field.metadata['label']} must be a .*number from .* to .*, not "
        ):
            Settings(**{field.name: value})


def test_the_sentence_names_the_range():
    with pytest.raises(HelloMemeError) as error:
        Settings(expression=3)
    assert str(error.value) == "Expression must be a number from 0 to 2, not 3."
    with pytest.raises(HelloMemeError) as error:
        Settings(seed=-1)
    assert str(error.value) == f"Seed must be a whole number from 0 to {MAX_SEED}, not -1."


def test_sliders_deliver_floats_for_whole_numbers():
    settings = Settings(steps=4.0, expression=1)
    assert settings.steps == 4 and isinstance(settings.steps, int)
    assert isinstance(settings.expression, float)
    with pytest.raises(HelloMemeError):
        Settings(steps=4.5)


def test_only_what_may_be_left_open_may_be_none():
    assert Settings(steps=None, guidance=None, driver_face=None) == Settings()
    with pytest.raises(HelloMemeError):
        Settings(seed=None)


def test_text_is_text():
    assert Settings(prompt="a hat").prompt == "a hat"
    with pytest.raises(HelloMemeError, match="^Prompt must be text"):
        Settings(prompt=None)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_a_release_fills_in_its_own_defaults(release):
    resolved = Settings(seed=3).resolved(release)
    assert (resolved.steps, resolved.guidance, resolved.seed) == (release.steps, release.guidance, 3)
    assert Settings(steps=7, guidance=2).resolved(release).steps == 7
    assert resolved == Settings(**dataclasses.asdict(resolved))  # the row's own defaults lie in the ranges

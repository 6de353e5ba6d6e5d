"""How many kinds of bad input the tables hold."""

import test_bad_files as bad_files
import test_bad_models as bad_models
import test_motion as motion_tests
import test_pictures as picture_tests
from test_bad_models import with_lora  # noqa: F401  (a fixture)
from test_bad_settings import SETTINGS
from test_launch import SHAPES


def test_there_are_at_least_60_kinds(with_lora, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir(), (tmp_path / "c").mkdir()
    tables = [
        bad_files.bad_pictures(tmp_path / "a"),
        picture_tests.bad_inputs(tmp_path / "b"),
        motion_tests.bad_files(tmp_path / "b"),
        bad_files.bad_motions(),
        bad_models.bad_weights(),
        bad_models.bad_loras(tmp_path / "c", with_lora[1]),
        bad_models.FOLDERS,
        bad_models.NAMES,
        SETTINGS,
        SHAPES,
    ]
    count = sum(map(len, tables))
    print(f"{count} kinds of bad input")
    assert count >= 60

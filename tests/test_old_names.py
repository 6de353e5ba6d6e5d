"""Pipelines saved when our networks' modules had other names still load."""

import json

import pytest
import torch

from hellomeme.models.old_names import MOVED
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.load import load

OLD = {
    "vae": "hellomeme.autoencoder",
    "hm_reference": "hellomeme.networks",
    "hm_control": "hellomeme.control",
}
NEW = {
    "vae": "hellomeme.models.autoencoder",
    "hm_reference": "hellomeme.models.adapters",
    "hm_control": "hellomeme.models.control",
}


@pytest.fixture(scope="module")
def saved(model_folder, tmp_path_factory):
    """The folder of a saved pipeline, and its networks."""
    folder = tmp_path_factory.mktemp("saved")
    pipeline = load(str(model_folder), device="cpu")[0]
    pipeline.save_pretrained(folder)
    return folder, pipeline


def test_a_pipeline_is_saved_by_the_names_of_today(saved):
    index = json.loads((saved[0] / "model_index.json").read_text())
    assert {part: index[part][0] for part in NEW} == NEW


@pytest.mark.parametrize("names", [OLD, NEW], ids=["old", "new"])
def test_a_saved_pipeline_loads_by_the_names_of_its_time(saved, names):
    folder, pipeline = saved
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index |= {part: [module, index[part][1]] for part, module in names.items()}
    path.write_text(json.dumps(index))
    again = HelloMemePipeline.from_pretrained(folder)
    for part in names:
        ours, theirs = getattr(pipeline, part), getattr(again, part)
        assert type(ours) is type(theirs)
        for tensor, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(tensor, other)


def test_every_network_has_its_old_name():
    assert set(MOVED) == {"autoencoder", "control", "emotion", "networks"}
    assert MOVED["emotion"].FanEncoder and MOVED["networks"].HMReferenceAdapter

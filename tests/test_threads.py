"""How many threads draw on the CPU."""

import os
from types import SimpleNamespace

import pytest
import torch

from hellomeme import threads


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with so many cores, and these files of cgroups."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "OWN_CGROUPS", tmp_path / "own")

    def machine(cores, own="", **files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return machine


@pytest.mark.parametrize(
    "cores, own, files, usable",
    [
        (8, "", {}, 8),
        (8, "0::/a/b\n", {}, 8),
        (8, "0::/a/b\n", {"a__b__cpu_max": "max 100000\n"}, 8),
        (8, "0::/a/b\n", {"a__b__cpu_max": "350000 100000\n"}, 3),
        (8, "0::/a/b\n", {"a__b__cpu_max": "max 100000\n", "a__cpu_max": "200000 100000\n"}, 2),
        (8, "0::/of/the/host\n", {"cpu_max": "50000 100000\n"}, 1),
        (2, "0::/\n", {"cpu_max": "1600000 100000\n"}, 2),
        (8, "0::/\n", {"cpu_max": "damaged"}, 8),
        (
            8,
            "3:cpu,cpuacct:/a\n0::/\n",
            {"cpu__a__cpu_cfs_quota_us": "-1", "cpu__a__cpu_cfs_period_us": "9"},
            8,
        ),
        (8, "3:cpu,cpuacct:/a\n", {"cpu__cpu_cfs_quota_us": "300\n", "cpu__cpu_cfs_period_us": "100\n"}, 3),
    ],
)
def test_cores_that_the_process_may_use(machine, cores, own, files, usable):
    machine(cores, own, **files)
    assert threads.usable_cores() == usable


def test_small_networks_take_one_thread_and_large_ones_what_is_there_or_was_asked_for(machine, monkeypatch):
    machine(6)

    def unet(parameters):
        return SimpleNamespace(unet=SimpleNamespace(parameters=lambda: iter(parameters)))

    large = unet([torch.empty(8_600, 100_000, device="meta")])
    assert [threads.threads_for(each) for each in (unet([torch.empty(7)]), large)] == [1, 6]
    monkeypatch.setenv("OMP_NUM_THREADS", "12")
    assert [threads.threads_for(each) for each in (unet([torch.empty(7)]), large)] == [1, 12]
    before = torch.get_num_threads()
    threads.set_threads(2)
    assert torch.get_num_threads() == 2
    threads.set_threads(before)


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch):
    for asked, then in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if asked:
            monkeypatch.setenv("OMP_WAIT_POLICY", asked)
        threads.wait_without_spinning()
        assert os.environ["OMP_WAIT_POLICY"] == then

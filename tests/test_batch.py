"""Pictures from a table: what is drawn, skipped and reported."""

import io
import os
import subprocess
import sys
from pathlib import Path

import photos
import pytest
from test_tables import table  # noqa: F401  (a fixture)

from hellomeme.cli import batch, common, main, processes
from hellomeme.cli.jobs import Job, draw, is_done, made_from
from hellomeme.errors import HelloMemeError
from hellomeme.face.edit import Edit, Turn
from hellomeme.io import metadata
from hellomeme.releases.load import find
from hellomeme.settings import Settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


class Counting:
    """Stands for a reenactor: a name with "bad" in it shows no face."""

    def __init__(self):
        self.references = []

    def set_reference(self, picture, face=None):
        self.references.append((picture.name, face))
        if "bad" in picture.name:
            raise HelloMemeError("No face in the reference.")

    def image(self, driver, settings):
        if "bad" in driver.name:
            raise HelloMemeError("No face in the driver.")
        if "huge" in driver.name:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")
        return f"{self.references[-1][0]} as {driver.name}"


def job(reference, driver, face=None):
    return Job(0, Path(reference), Path(driver), Path("out"), Settings(reference_face=face))


def test_a_reference_is_set_once_for_its_neighbours():
    counting = Counting()
    jobs = [
        job("a", "1"),
        job("a", "bad"),
        job("a", "huge"),
        job("a", "2"),
        job("bad", "1"),
        job("bad", "2"),
        job("a", "1"),
        job("a", "1", face=1),
    ]
    results = [str(result) for _, result in draw(counting, jobs)]
    assert counting.references == [("a", None), ("bad", None), ("a", None), ("a", 1)]
    assert results == [
        "a as 1",
        "No face in the driver.",
        "Drawing failed: CUDA out of memory. Tried to allocate 2 GiB.",
        "a as 2",
        "No face in the reference.",
        "No face in the reference.",
        "a as 1",
        "a as 1",
    ]


@pytest.fixture
def run(model_folder, pictures, tmp_path, capfd):
    """Runs `batch` on a table of pictures; returns status, names of the files there are and both streams."""

    def run(text, *options):
        path = pictures / "jobs.csv"
        path.write_text(text)
        quick = ["--release", str(model_folder), "--device", "cpu", "--steps", "1", "--guidance", "1"]
        try:
            status = main.main(["batch", str(path), str(tmp_path / "out"), *quick, *options])
        except SystemExit as exit:
            status = exit.code
        files = sorted(path.name for path in tmp_path.glob("out/**/*") if path.is_file())
        return status, files, *capfd.readouterr()

    return run


def test_a_batch_goes_on_and_is_gone_on_with(run, tmp_path, model_folder, monkeypatch):
    table = (
        "reference,driver,output,seed\nreference.png,face.png,a.png,1\nreference.png,no face.png,b.png,2\n"
        "reference.png,missing.png,c.png,3\nreference.png,face.png,sub/d.jpg,4\n"
    )
    status, files, out, err = run(table)
    assert status == 1 and files == ["a.png", "d.jpg"]
    assert out.splitlines() == [str(tmp_path / "out/a.png"), str(tmp_path / "out/sub/d.jpg")]
    summary, *rows = err.splitlines()
    assert summary == "hellomeme: 2 made, 0 there already, 2 failed."
    assert rows[0] == f"hellomeme: row 3: {photos.NO_FACE}" and rows[1].startswith(
        "hellomeme: row 4: The driver picture "
    )
    stamp = metadata.read(tmp_path / "out/a.png")
    assert (
        stamp.settings == Settings(steps=1, guidance=1, seed=1)
        and stamp.release == model_folder.name
        and stamp.labelled
    )

    before = (tmp_path / "out/a.png").stat()
    monkeypatch.setattr(
        "hellomeme.reenactor.Reenactor.from_release", lambda *_, **__: pytest.fail("nothing is left to draw")
    )
    good = "".join(line for line in table.splitlines(True) if "no face" not in line and "missing" not in line)
    status, files, out, err = run(good)
    assert (status, out, err) == (0, "", "hellomeme: 0 made, 2 there already, 0 failed.\n")
    assert (tmp_path / "out/a.png").stat() == before

    # the row now asks for something else: its picture is neither passed over nor replaced
    for changed in (
        good.replace("a.png,1", "a.png,5"),
        good.replace("face.png,a.png", "reference.png,a.png"),
    ):
        status, files, out, err = run(changed)
        assert status == 1 and "1 there already, 1 failed" in err
        assert err.splitlines()[1] == (
            f"hellomeme: row 2: The output {tmp_path / 'out/a.png'} exists, but was not made from these "
            "pictures with this release, these settings and options: choose another name or move it away."
        )
    assert (tmp_path / "out/a.png").stat() == before
    assert "2 failed" in run(good, "--original-size")[3]


def test_options_for_the_whole_batch(run, tmp_path):
    from PIL import Image

    status, files, _, _ = run(
        "reference,driver\nreference.png,face.png\n", "--original-size", "--no-label", "--seed", "9"
    )
    assert status == 0 and files == ["reference-face.png"]
    stamp = metadata.read(tmp_path / "out/reference-face.png")
    assert stamp.settings.seed == 9 and not stamp.labelled
    with Image.open(tmp_path / "out/reference-face.png") as picture:
        assert picture.size == (256, 256)


def test_an_unusable_table_or_folder_does_nothing(run, tmp_path):
    status, files, out, err = run("a,b\n1,2\n")
    assert (status, files, out) == (2, [], "") and err == (
        "hellomeme: The table jobs.csv has no column reference: its first row must name the columns.\n"
    )
    assert not (tmp_path / "out").exists()
    assert run("reference,driver\nreference.png,face.png\n", "--steps", "99")[0] == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("mine")
    status, _, _, err = run("reference,driver\nreference.png,face.png\n")
    assert (
        status == 2 and err.startswith("hellomeme: The folder ") and (tmp_path / "out").read_text() == "mine"
    )


def test_an_interrupted_batch_keeps_what_is_made(run, monkeypatch):
    write, calls = common.write, []

    def second_time(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(common, "write", second_time)
    table = "reference,driver,seed\n" + "".join(f"reference.png,face.png,{seed}\n" for seed in range(3))
    status, files, _, err = run(table)
    assert (status, files) == (130, ["reference-face.png"])
    assert err == "hellomeme: interrupted, 1 pictures were made; start again to go on.\n"
    assert run(table)[:2] == (0, ["reference-face-2.png", "reference-face-3.png", "reference-face.png"])


def test_processes_share_the_rows(run, monkeypatch):
    table = "reference,driver,output\nnone.png,face.png,x.png\n" + "".join(
        f"reference.png,face.png,{n}.png\n" for n in range(3)
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert run(table)[:2] == (0, ["1.png"])  # the first process reports the bad row
    monkeypatch.setenv("RANK", "0")
    assert run(table)[:2] == (1, ["0.png", "1.png", "2.png"])
    monkeypatch.setenv("RANK", "2")
    status, _, _, err = run(table)
    assert status == 2 and err.startswith(
        "hellomeme: RANK and WORLD_SIZE in the environment do not fit together"
    )


@pytest.fixture
def launch(model_folder, pictures, tmp_path):
    """Runs `batch` in two processes, as torchrun and `accelerate launch` start them; returns status, the
    files there are, both streams without what the launcher itself says."""

    def launch(text, *options):
        path = pictures / "launched.csv"
        path.write_text(text)
        quick = [
            "--device",
            "cpu",
            "--steps",
            "1",
            "--guidance",
            "1",
            "--release",
            str(model_folder),
            *options,
        ]
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            "-m",
        ]
        environment = {
            **os.environ,
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",  # each write is seen at once, so lines written in two parts would mix
        }
        done = subprocess.run(
            [*launcher, "hellomeme", "batch", str(path), str(tmp_path / "out"), *quick],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        ours = [line for line in done.stderr.splitlines() if line.startswith("hellomeme: ")]
        return (
            done.returncode,
            sorted(path.name for path in tmp_path.glob("out/*")),
            done.stdout.splitlines(),
            ours,
        )

    return launch


def test_two_processes_share_a_table_and_tell_once(launch, tmp_path):
    names = "abcde"
    rows = [f"reference.png,{'no face' if name == 'c' else 'face'}.png,{name}.png" for name in names]
    table = "\n".join(
        ["reference,driver,output", "none.png,face.png,x.png", *rows, "reference.png,none.png,y.png"]
    )
    status, files, out, ours = launch(table)
    made = [f"{name}.png" for name in "abde"]
    assert status != 0 and files == made
    assert sorted(out) == [str(tmp_path / "out" / name) for name in made]  # each of them once
    assert (
        ours[0] == "hellomeme: 4 made, 0 there already, 3 failed."
        and ours[2] == f"hellomeme: row 5: {photos.NO_FACE}"
    )
    assert [line.split(":")[1] for line in ours[1:]] == [" row 2", " row 5", " row 8"]

    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("out/*"))]
    status, _, out, ours = launch(
        "\n".join(["reference,driver,output", *(row for row in rows if "no face" not in row)])
    )
    assert (status, out, ours) == (0, [], ["hellomeme: 0 made, 4 there already, 0 failed."])
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("out/*"))] == before


def test_two_processes_refuse_once(launch, model_folder, tmp_path):
    import shutil

    broken = Path(shutil.copytree(model_folder, tmp_path / "broken"))
    (broken / "hm_control" / "config.json").write_text("{")
    table = "reference,driver\n" + "reference.png,face.png\n" * 4
    status, files, out, ours = launch(table, "--release", str(broken))
    assert status != 0 and (files, out) == ([], [])
    assert ours == [f"hellomeme: {broken}/hm_control/config.json is damaged: download it again."]


def test_is_done_only_with_the_same_pictures_release_settings_and_options(table, tmp_path):
    from PIL import Image

    table("")
    release = find("demo")
    wanted = Job(2, tmp_path / "toon.png", tmp_path / "me.jpg", tmp_path / "a.png", Settings(seed=4))
    settings, made = wanted.settings.resolved(release), made_from(wanted, "lora")
    assert not is_done(wanted, release, "lora")
    picture = Image.new("RGB", (8, 8))
    for labelled in (True, False):
        metadata.save(
            picture,
            wanted.output,
            metadata.Stamp(settings, "demo", labelled=labelled, made_from=made),
            overwrite=True,
        )
        assert is_done(wanted, release, "lora")
    refused = pytest.raises(
        HelloMemeError, match="exists, but was not made from these pictures with this release"
    )
    with refused:
        is_done(wanted, release)
    (tmp_path / "me.jpg").write_text("another picture")
    with refused:
        is_done(wanted, release, "lora")
    for stamp in (
        metadata.Stamp(Settings(seed=5).resolved(release), "demo", made_from=made_from(wanted)),
        metadata.Stamp(settings, "v1", made_from=made_from(wanted)),
        metadata.Stamp(settings, "demo"),
        metadata.Stamp(settings, "demo", edit=Edit(Turn(yaw=5)), made_from=made_from(wanted)),
        None,
    ):
        metadata.save(picture, wanted.output, stamp, overwrite=True)
        with refused:
            is_done(wanted, release)
    (tmp_path / "me.jpg").unlink()
    with pytest.raises(HelloMemeError, match="me.jpg cannot be read: No such file or directory"):
        is_done(wanted, release)


def test_a_number_type_that_is_asked_for_counts(run):
    table = "reference,driver\nreference.png,face.png\n"
    for again in ("1 made, 0", "0 made, 1"):
        assert again in run(table, "--dtype", "float32")[3]
    status, _, _, err = run(table, "--dtype", "bfloat16")
    assert status == 1 and "exists, but was not made from these pictures with this release" in err


def test_alone_a_process_has_the_first_place():
    assert processes.place() == (0, 1)


@pytest.mark.parametrize("chosen, used", [([], "cuda:1"), (["cuda"], "cuda:1"), (["cpu"], "cpu")])
def test_each_process_has_a_gpu_of_its_own(chosen, used, monkeypatch):
    def taken(*_, device, **__):
        raise HelloMemeError(str(device))

    monkeypatch.setattr("hellomeme.reenactor.Reenactor.from_release", taken)
    command = ["batch", "jobs.csv", "out", *(f"--device={device}" for device in chosen)]
    options = main._parser().parse_args(command)
    for own, expected in (("cuda:1", used), (None, str(options.device))):
        with pytest.raises(HelloMemeError, match=f"^{expected}$"):
            common.load(options, io.StringIO(), own)


def test_a_process_that_could_not_begin_is_told_of():
    standard_error = io.StringIO()
    shares = [batch.Outcome(made=2), batch.Outcome(failure="The folder is gone.")]
    assert batch._report(shares, standard_error) == 1
    assert "2 made" in standard_error.getvalue() and "The folder is gone." in standard_error.getvalue()

"""Pictures from a table: what is checked, drawn, skipped and reported."""

import io
import os
import subprocess
import sys
from pathlib import Path

import photos
import pytest

from hellomeme.cli import batch, common, jobs, main, processes, table as table_file
from hellomeme.cli.jobs import Job, draw, is_done, made_from, read_table
from hellomeme.errors import HelloMemeError
from hellomeme.face.edit import Edit, Turn
from hellomeme.io import metadata
from hellomeme.releases.load import find
from hellomeme.settings import Settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def table(tmp_path):
    """Writes a table beside three files that stand for pictures, and returns its path."""
    for name in ("toon.png", "me.jpg", "du.jpg"):
        (tmp_path / name).write_text("a picture")

    def write(text, name="jobs.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def plan(path, **defaults):
    return read_table(path, path.parent / "out", Settings(**defaults))


def test_a_table_of_jobs(table, tmp_path):
    found = plan(
        table(
            "Reference,driver,output,Steps,driver-face,prompt\n"
            "toon.png,me.jpg,smile.png,7,1,a hat\n\n"
            'toon.png,du.jpg,sub/b.webp,,,"red, blue"\n'
            f"{tmp_path / 'toon.png'},me.jpg\n"
        ),
        steps=3,
    )
    out = tmp_path / "out"
    assert found.errors == {} and not out.exists()
    assert found.jobs == [
        Job(
            2,
            tmp_path / "toon.png",
            tmp_path / "me.jpg",
            out / "smile.png",
            Settings(steps=7, driver_face=1, prompt="a hat"),
        ),
        Job(
            4,
            tmp_path / "toon.png",
            tmp_path / "du.jpg",
            out / "sub/b.webp",
            Settings(steps=3, prompt="red, blue"),
        ),
        Job(5, tmp_path / "toon.png", tmp_path / "me.jpg", out / "toon-me.png", Settings(steps=3)),
    ]


def test_names_are_made_up_where_none_is_given(table, tmp_path):
    found = plan(table("reference,driver,seed\n" + "".join(f"toon.png,me.jpg,{seed}\n" for seed in range(3))))
    assert [job.output.name for job in found.jobs] == ["toon-me.png", "toon-me-2.png", "toon-me-3.png"]
    long = f"{'笑' * 80}.png"  # 240 bytes: two of them are more than a file system allows
    (tmp_path / long).write_text("a picture")
    (job,) = plan(table(f"reference,driver\n{long},{long}\n")).jobs
    assert job.output.name == f"{'笑' * 36}-{'笑' * 36}.png"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffreference;driver;prompt\r\ntoon.png;me.jpg;a, b\r\n",
        "reference\tdriver\tprompt\ntoon.png\tme.jpg\ta, b\n",
        'driver,prompt,reference\n me.jpg ,"a, b", toon.png\n',
    ],
)
def test_tables_as_spreadsheets_write_them(table, text):
    found = plan(table(text))
    assert (
        found.errors == {}
        and found.jobs[0].settings.prompt == "a, b"
        and found.jobs[0].reference.name == "toon.png"
    )


SEEDS = [7, 8]  # of the tables below
STEPS = [2, None]


@pytest.mark.parametrize(
    "text",
    [
        "reference,driver,seed,steps,,\r\ntoon.png,me.jpg,7,2,,\r\ntoon.png,me.jpg,8,,,\r\n",
        "reference,,driver,seed,steps\ntoon.png,,me.jpg,7,2\ntoon.png,,me.jpg,8\n",
        ",reference,driver,seed,steps\n0,toon.png,me.jpg,7.0,2.0\n5,toon.png,me.jpg,8.0,\n",
        "Unnamed: 0,reference,driver,seed,steps\n0,toon.png,me.jpg,7,2.000000\n1,toon.png,me.jpg,8,\n",
        "sep=;\r\nreference;driver;seed;steps\r\ntoon.png;me.jpg;7;2\r\ntoon.png;me.jpg;8;\r\n",
        '\ufeff"sep=|"\nreference|driver|seed|steps\ntoon.png|me.jpg|7,0|2,0\ntoon.png|me.jpg|8,00|\n',
        "reference\tdriver\tseed\tsteps\r\ntoon.png\tme.jpg\t7\t2\r\ntoon.png\tme.jpg\t8\t\r\n".encode(
            "utf-16"
        ),
        '"reference", "driver", "seed", "steps"\r"toon.png", "me.jpg", "7", "2"\r"toon.png", "me.jpg", "8"\r',
        'reference;driver;seed;steps\ntoon.png;me.jpg;7;2\n;;;\n"";"";"";\n\u00a0; ;;\ntoon.png;me.jpg;8;\n',
        ",,,\n\nreference,driver,seed,steps\ntoon.png,me.jpg,7,2\ntoon.png,me.jpg,8,\n",
    ],
    ids=[
        "empty columns at the end",
        "an empty column amid others",
        "the index and floats of pandas",
        "pandas' own file read and written again",
        "a first line for Excel",
        "byte order mark and first line",
        "Unicode text of Excel",
        "spaces before quotes, line ends of old Macs",
        "blank rows of merged cells",
        "blank rows at the top",
    ],
)
def test_empty_columns_an_index_and_blank_rows_mean_nothing(table, text):
    found = plan(table(text))
    assert found.errors == {}
    assert [(job.reference.name, job.driver.name) for job in found.jobs] == [("toon.png", "me.jpg")] * 2
    assert [job.settings for job in found.jobs] == [
        Settings(seed=seed, steps=steps) for seed, steps in zip(SEEDS, STEPS, strict=True)
    ]


def test_decimal_commas_are_points(table):
    rows = "toon.png;me.jpg;1,2;,5;7,5\ntoon.png;me.jpg;0,125;1;2\n"
    first, second = plan(table(f"reference;driver;expression;head;guidance\n{rows}")).jobs
    assert (first.settings.expression, first.settings.head, first.settings.guidance) == (1.2, 0.5, 7.5)
    assert second.settings.expression == 0.125
    quoted = plan(table('reference,driver,expression,prompt\ntoon.png,me.jpg,"1,5","a, b"\n')).jobs[0]
    assert quoted.settings == Settings(expression=1.5, prompt="a, b")


def test_rows_are_numbered_as_a_spreadsheet_shows_them(table):
    """Excel hides the line that names the separator, and counts blank rows."""
    found = plan(table("sep=;\nreference;driver;seed\n;;\ntoon.png;me.jpg;-1\ntoon.png;me.jpg;1,000\n"))
    assert found.errors == {
        3: "Seed must be a whole number from 0 to 2147483647, not -1.",
        4: "Seed must be a whole number from 0 to 2147483647, not '1,000'.",
    }


UNREADABLE = "The table jobs.csv cannot be read: save it as CSV in UTF-8."
KNOWN = ", ".join([*jobs.PATHS, *jobs.FIELDS])


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "The table jobs.csv has no column reference: its first row must name the columns."),
        (
            "reference,output\na,b\n",
            "The table jobs.csv has no column driver: its first row must name the columns.",
        ),
        ("reference,driver\n", "The table jobs.csv has no rows: write one for each picture."),
        ("reference,driver\n , \n", "The table jobs.csv has no rows: write one for each picture."),
        ("reference,driver,driver\na,b,c\n", "The table jobs.csv has two columns driver: leave one out."),
        (
            "reference,driver,colour\na,b,c\n",
            f"The table jobs.csv has a column 'colour', which means nothing: choose from {KNOWN}.",
        ),
        (
            "reference,driver,\na,b,\na,b,c\n",
            "Column 3 of the table jobs.csv has no name, but 'c' in row 3: name the column or empty it.",
        ),
        (
            ",reference,driver\nx,a,b\n",
            "Column 1 of the table jobs.csv has no name, but 'x' in row 2: name the column or empty it.",
        ),
        (b"reference,driver\n\xff\xfe,b\n", UNREADABLE),
        (b"\xff\xfereference,driver\n", UNREADABLE),
        (b"PK\x03\x04" + bytes(range(256)), UNREADABLE),
        ('reference,driver\n"a,b\n', UNREADABLE),
        ("reference,driver\n" + "a" * 200_000 + ",b\n", UNREADABLE),
    ],
)
def test_tables_that_cannot_be_used(table, text, sentence):
    with pytest.raises(HelloMemeError) as caught:
        plan(table(text))
    assert str(caught.value) == sentence


def test_a_missing_and_a_huge_table(table, tmp_path, monkeypatch):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(HelloMemeError) as caught:
            plan(path)
        assert str(caught.value) == f"There is no table {path}: check the path."
    monkeypatch.setattr(table_file, "MAX_SIZE", 10)
    with pytest.raises(HelloMemeError, match="^The table jobs.csv is larger than 0 MB"):
        plan(table("reference,driver\ntoon.png,me.jpg\n"))


@pytest.mark.parametrize(
    "cells, sentence",
    [
        ({"reference": ""}, "The row names no reference picture: fill in its path."),
        ({"driver": "none.jpg"}, "The driver picture {folder}/none.jpg does not exist: check the path."),
        ({"driver": "."}, "The driver picture {folder} does not exist: check the path."),
        (
            {"driver": "a" * 300},
            "The driver picture {folder}/" + "a" * 300 + " does not exist: check the path.",
        ),
        ({"steps": "many"}, "Steps must be a whole number from 1 to 50, not 'many'."),
        ({"steps": "4.5"}, "Steps must be a whole number from 1 to 50, not '4.5'."),
        ({"steps": "51"}, "Steps must be a whole number from 1 to 50, not 51."),
        ({"expression": "nan"}, "Expression must be a number from 0 to 2, not nan."),
        ({"output": "../me.png"}, "The output '../me.png' must be a plain name in the output folder."),
        (
            {"output": "a/../../me.png"},
            "The output 'a/../../me.png' must be a plain name in the output folder.",
        ),
        ({"output": "/tmp/me.png"}, "The output '/tmp/me.png' must be a plain name in the output folder."),
        ({"output": "C:\\me.png"}, "The output 'C:\\\\me.png' must be a plain name in the output folder."),
        ({"output": "a\0.png"}, "The output 'a\\x00.png' must be a plain name in the output folder."),
        ({"output": "me.gif"}, "The output me.gif must end in one of .png, .jpg, .jpeg, .webp."),
        ({"output": ".png"}, "The output .png must end in one of .png, .jpg, .jpeg, .webp."),
        (
            {"output": "link/me.png"},
            "The output link/me.png leads out of the output folder: choose another name.",
        ),
        ({"output": "link.png"}, "The output link.png is a folder or a link: choose another name."),
        ({"output": "folder.png"}, "The output folder.png is a folder or a link: choose another name."),
        ({"output": "GOOD.png"}, "The output GOOD.png is that of row 2 already: choose another name."),
        ({"": "more"}, "The row has more cells than there are columns: put a text with a comma in quotes."),
    ],
)
def test_bad_rows_are_told_and_the_others_stay(table, tmp_path, cells, sentence):
    (tmp_path / "out/folder.png").mkdir(parents=True)
    (tmp_path / "out/link").symlink_to(tmp_path)
    (tmp_path / "out/link.png").symlink_to(tmp_path / "me.jpg")
    names = ["reference", "driver", "output", "steps", "expression"]
    row = {"reference": "toon.png", "driver": "me.jpg", **cells}
    lines = [
        ",".join(names),
        "toon.png,me.jpg,good.png",
        ",".join(row.get(name, "") for name in [*names, ""]).rstrip(","),
        "toon.png,du.jpg,other.png",
    ]
    before = sorted(tmp_path.rglob("*"))
    found = plan(table("\n".join(lines)))
    assert found.errors == {3: sentence.format(folder=tmp_path)} and [job.row for job in found.jobs] == [2, 4]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "jobs.csv"])


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


def test_alone_a_process_has_the_first_place():
    assert processes.place() == (0, 1)


def test_a_process_that_could_not_begin_is_told_of():
    standard_error = io.StringIO()
    shares = [batch.Outcome(made=2), batch.Outcome(failure="The folder is gone.")]
    assert batch._report(shares, standard_error) == 1
    assert "2 made" in standard_error.getvalue() and "The folder is gone." in standard_error.getvalue()

"""Tables of a batch: how they are read, and what is refused."""

import pytest

from hellomeme.cli import jobs, table as table_file
from hellomeme.cli.jobs import Job, read_table
from hellomeme.errors import HelloMemeError
from hellomeme.settings import Settings


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

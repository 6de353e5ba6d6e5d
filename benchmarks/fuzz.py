"""Files that are damaged at random: `python benchmarks/fuzz.py [--only KIND] [--count 1000] [--seed 0]`.

Valid pictures, clips, safetensors, motion files and tables are changed by a few bytes, cut off, filled up and
spliced, and read as the product reads them, in a process that is watched. Each must be read, or refused with
a sentence. What is counted is tracebacks, processes that end, cases that take more than 10 s of the processor
or a minute, and files that are left over. Cases are numbered from --first on: seed and number give the same
file again.
"""

import argparse
import contextlib
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from common import ROOT, machine

LIMIT = 10  # s of the processor, of all processes of a case
WAITING = 60  # s
PATIENCE = 300  # s, after which the process is ended; starting it counts, too
KINDS = ("pictures", "motion", "tables", "safetensors", "clips")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four changes."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place, length = chance.randrange(len(data) + 1), chance.choice((1, 2, 4, 8, 64, 500))
        # headers are at the beginning, indexes often at the end
        place = chance.choice((place, place, min(place, 400), max(place, len(data) - 400)))
        values = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80", bytes([chance.randrange(256)])))
        change = chance.choice(("flip", "flip", "fill", "noise", "cut", "drop", "grow", "copy"))
        if not data:
            return bytes(data)
        if change == "flip":
            data[min(place, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif change == "fill":
            data[place : place + length] = values * min(length, len(data) - place)
        elif change == "noise":
            data[place : place + length] = chance.randbytes(min(length, len(data) - place))
        elif change == "cut":
            del data[place:]
        elif change == "drop":
            del data[place : place + length]
        elif change == "grow":
            data[place:place] = values * length
        else:
            other = chance.randrange(len(data) + 1)
            data[place : place + length] = data[other : other + length]
    return bytes(data)


def changed_motion(content: bytes, chance: random.Random) -> bytes:
    """A motion file; every other one changed within its arrays, so that its check sums hold."""
    if chance.random() < 0.5:
        return mutated(content, chance)
    import io
    import zipfile

    packed, place = io.BytesIO(), chance.randrange(7)
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
        for k, name in enumerate(source.namelist()):
            array = source.read(name)
            target.writestr(name, mutated(array, chance) if k == place else array)
    return packed.getvalue()


def changed_table(content: bytes, chance: random.Random) -> bytes:
    """A table with other cells and separators; every other one also by bytes."""
    cells = [
        b"",
        b"7.0",
        b"1,5",
        b"-1",
        b"nan",
        b"1e999",
        b"\xc3\xa9",
        b'"a',
        b'a"b',
        b"../x.png",
        b"=1+1",
        b"\0",
    ]
    for _ in range(chance.randrange(4)):
        pieces = content.split(separator := chance.choice((b",", b"\n", b";")))
        pieces[chance.randrange(len(pieces))] = chance.choice(cells)
        content = chance.choice((*4 * [separator], b",", b"\n", b";", b"\t", b"\r")).join(pieces)
    return content if chance.random() < 0.5 else mutated(content, chance)


def write_pictures(folder: Path) -> list[Path]:
    import colour_profiles
    import photos
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    picture = Image.fromarray(photos.toon(3)).resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = colour_profiles.profile(colour_profiles.DISPLAY_P3)
    inks = {"icc_profile": colour_profiles.cmyk_profile()}
    forms = {
        "a.png": {"icc_profile": profile}, "a.jpg": {"icc_profile": profile, "exif": exif}, "a.webp": {},
        "b.webp": {"lossless": True}, "b.jpg": {"progressive": True}, "a.gif": {}, "a.bmp": {}, "a.ppm": {},
        "a.tif": {"compression": "tiff_lzw", "icc_profile": profile}, "a.avif": {}, "a.jp2": {}, "a.tga": {},
        "a.ico": {}, "a.heic": {"icc_profile": profile},
    }  # fmt: skip
    for name, options in forms.items():
        picture.save(folder / name, **options)
    picture.convert("CMYK").save(folder / "c.jpg", **inks)
    picture.quantize(16).save(folder / "c.png", transparency=3)
    picture.save(folder / "c.gif", save_all=True, append_images=[picture.rotate(90)])
    return sorted(folder.iterdir())


def write_motions(folder: Path) -> list[Path]:
    import numpy as np

    from hellomeme.face.motion import Motion

    for count in (1, 30):
        eye = np.tile(np.eye(3), (count, 1, 1))
        motion = Motion(
            np.full((count, 51), 0.5, np.float32), eye, np.full((count, 2), 256.0), np.full(count, 50.0),
            np.ones(count, bool), rate=None if count == 1 else 25,
        )  # fmt: skip
        motion.save(folder / f"{count}.npz")
    return sorted(folder.iterdir())


def write_tables(folder: Path) -> list[Path]:
    rows = "reference,driver,output,seed,expression,prompt\n" + 'a.png,a.png,{}.png,7,1.5,"a, b"\n' * 3
    for k, text in enumerate(
        (rows, "\ufeffsep=;\r\n" + rows.replace(",", ";"), "," + rows.replace("\na", "\n1,a"))
    ):
        (folder / f"{k}.csv").write_text(text)
    (folder / "3.csv").write_bytes(rows.replace(",", "\t").encode("utf-16"))
    return sorted(folder.iterdir())


def write_safetensors(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import load_file, save_file
    from single_file import write_single_file
    from styled import CASE, write_lora

    whole = load_file(write_lora(folder / "lora.safetensors", 1))
    save_file({name: value.half() for name, value in whole.items()}, folder / "lora-half.safetensors")
    save_file(
        {name: value.to(torch.float8_e4m3fn) for name, value in whole.items()}, folder / "lora-8.safetensors"
    )
    write_single_file(CASE / "checkpoint", folder / "base.safetensors")
    return sorted(folder.iterdir())


def write_clips(folder: Path) -> list[Path]:
    from clips import H264, HEVC, VP9, ffmpeg

    source = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=12:d=0.7", "-f", "lavfi", "-i", "sine=d=0.7"]
    mpeg2, sound = ["-c:v", "mpeg2video", "-bf", 2, "-r", 24], ["-c:a", "aac", "-ar", 8000]
    forms = {
        "a.mp4": [*H264, "-bf", 2, *sound], "b.mp4": [*H264, "-movflags", "frag_keyframe+empty_moov"],
        "a.mov": [*HEVC, *sound], "a.webm": VP9, "a.mkv": [*H264, "-flags", "+ildct+ilme", "-c:a", "mp2"],
        "a.avi": ["-c:v", "mpeg4", "-bf", 2, "-c:a", "mp2"], "a.ts": mpeg2, "b.ts": [*H264, "-c:a", "mp2"],
        "a.mpg": mpeg2, "a.flv": ["-ar", 44100], "a.ogg": ["-c:v", "libtheora"], "a.wmv": [], "a.gif": [],
        "a.3gp": ["-s", "176x144", *sound], "b.avi": ["-c:v", "mjpeg"], "a.ivf": [*VP9, "-an"],
    }  # fmt: skip
    for name, options in forms.items():
        ffmpeg(*source, *options, folder / name)
    return sorted(folder.iterdir())


class Fork:
    """Stands for the Popen of `worker.start_worker`: a copy of this process, as starting Python takes longer
    than reading such a file."""

    def __init__(self, module: str, *arguments: object, **streams: int):
        import importlib

        self.returncode = None
        is_writer = streams.get("stdin") == subprocess.PIPE
        output, error, given = os.pipe(), os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(given[0], 0)
            os.dup2(output[1], 1)
            os.dup2(error[1] if is_writer else os.open(os.devnull, os.O_WRONLY), 2)
            for end in (*output, *error, *given):
                os.close(end)
            status = 1
            try:
                sys.argv = [module, *map(str, arguments)]
                sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
                importlib.import_module(f"hellomeme.io.{module}").main()
                sys.stdout.flush()
                status = 0
            except SystemExit as reason:
                os.write(2, str(reason).encode())
            finally:
                os._exit(status)
        for end in (output[1], error[1], given[0]):
            os.close(end)
        self.stdout, self.stderr, self.stdin = (
            os.fdopen(output[0], "rb"), os.fdopen(error[0], "rb"), os.fdopen(given[1], "wb")
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in (self.stdout, self.stderr, self.stdin):
            with contextlib.suppress(OSError):
                stream.close()
        self.wait()

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, 9)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def reader(kind: str, folder: Path) -> Callable[[Path, int], None]:
    """What reads a file of the kind; its second argument is the number of the case."""
    from fractions import Fraction

    from hellomeme.io import metadata

    if kind == "pictures":
        from hellomeme.io.image import read_picture

        return lambda path, _: (metadata.read(path), read_picture(path))
    if kind == "motion":
        from hellomeme.face.motion import Motion

        return lambda path, _: Motion.load(path)
    if kind == "tables":
        from hellomeme.cli.jobs import read_table

        return lambda path, _: read_table(path, folder / "out")
    if kind == "clips":
        from hellomeme.io import decoding, encoding, ffmpeg  # noqa: F401  (imported before the first fork)
        from hellomeme.io.ffmpeg import ClipWriter, Sound, probe, read_frames

        if hasattr(os, "fork"):
            ffmpeg.start_worker = Fork

        def read_clip(path: Path, case: int) -> None:
            if case % 8 == 0 and path.suffix in metadata.CLIPS:
                metadata.read(path)
            info, start = probe(path), Fraction(case % 3, 5)
            frames = list(read_frames(path, info.rate, start, 20))
            if case % 4:
                return
            with ClipWriter(folder / "out.mp4", info.rate, Sound(path, start, Fraction(1, 2))) as writer:
                for frame in [frame for frame in frames if frame.shape == frames[0].shape][:3]:
                    writer.write(frame)
            (folder / "out.mp4").unlink()

        return read_clip

    from styled import write_release

    from hellomeme.releases.load import load
    from hellomeme.releases.loras import load_loras

    row = write_release(Path(tempfile.mkdtemp()))
    pipeline = load(row, device="cpu")[0]

    def read_weights(path: Path, case: int) -> None:
        if path.name.startswith("base"):
            load(row, base=str(path), device="cpu")
        else:
            try:
                load_loras(pipeline, [path])
            finally:
                load_loras(pipeline, [])

    return read_weights


def outcome(read: Callable[[Path, int], None], path: Path, case: int) -> dict[str, str]:
    from hellomeme.errors import HelloMemeError

    try:
        read(path, case)
        return {"outcome": "read"}
    except HelloMemeError as error:
        return {"outcome": "refused", "said": str(error)}
    except BaseException:
        return {"outcome": "traceback", "said": traceback.format_exc()}


def work(kind: str, samples: Path, first: int, count: int, seed: int) -> None:
    """Reads the cases one after the other; prints a line of JSON before and after each."""
    folder = Path(tempfile.mkdtemp())
    if kind == "tables":
        shutil.copy(ROOT / "examples" / "drivers" / "laugh.png", folder / "a.png")
    files, read = sorted(samples.iterdir()), reader(kind, folder)
    if kind == "safetensors":  # loading a base takes as long as 20 LoRA
        files = [file for file in files if "lora" in file.name] * 6 + [
            file for file in files if "base" in file.name
        ]
    change = {"tables": changed_table, "motion": changed_motion}.get(kind, mutated)
    tempfile.tempdir = str(folder / "temporary")
    os.environ["TMPDIR"] = tempfile.tempdir
    os.mkdir(tempfile.tempdir)
    kept = set(folder.rglob("*"))
    for case in range(first, first + count):
        chance = random.Random(f"{kind} {seed} {case}")
        sample = chance.choice(files)
        path = folder / f"{sample.stem}-{case}{sample.suffix}"
        path.write_bytes(change(sample.read_bytes(), chance))
        print(json.dumps({"case": case, "file": path.name}), flush=True)
        began, used = time.monotonic(), sum(os.times()[:4])
        found = outcome(read, path, case)
        found |= {"seconds": time.monotonic() - began, "processor": sum(os.times()[:4]) - used}
        path.unlink()
        left = [str(other.relative_to(folder)) for other in folder.rglob("*") if other not in kept]
        for name in left:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).unlink(missing_ok=True)
        print(json.dumps({**found, "left": left}), flush=True)
    shutil.rmtree(folder)


def run(kind: str, samples: Path, first: int, count: int, seed: int) -> Counter:
    """The number of cases by outcome: read, refused, traceback, ended, hang, leftover."""
    outcomes, end, began = Counter(), first + count, time.monotonic()
    while first < end:
        command = [
            sys.executable,
            __file__,
            "--work",
            kind,
            str(samples),
            str(first),
            str(end - first),
            str(seed),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            begun = None
            for line in lines(process):
                facts = json.loads(line)
                if "case" in facts:
                    begun = facts
                    continue
                first = begun["case"] + 1
                slow = facts["processor"] > LIMIT or facts["seconds"] > WAITING
                for outcome, is_so in ((facts["outcome"], True), ("hang", slow), ("leftover", facts["left"])):
                    outcomes[outcome] += bool(is_so)
                if slow or facts["left"] or facts["outcome"] == "traceback":
                    print(f"  {kind} {begun['case']} {begun['file']}: {facts}", flush=True)
                begun = None
            process.kill()
        if begun is not None:
            outcome = "ended" if process.returncode not in (0, -9) else "hang"
            print(
                f"  {kind} {begun['case']} {begun['file']}: {outcome}, status {process.returncode}",
                flush=True,
            )
            outcomes[outcome] += 1
            first = begun["case"] + 1
        elif first < end:
            raise SystemExit(f"the process for {kind} did not begin")
    print(f"{kind}: {dict(outcomes)}, {time.monotonic() - began:.0f} s", flush=True)
    return outcomes


def lines(process: subprocess.Popen):
    """The lines that a process prints, until it ends or says nothing for too long."""
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    while selector.select(PATIENCE):
        line = process.stdout.readline()
        if not line:
            return
        yield line
    process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, action="append", help="only this kind; may be given again")
    parser.add_argument("--count", type=int, default=1000, help="cases of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine(), flush=True)
    bad = 0
    for kind in options.only or KINDS:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            samples = Path(folder) / "samples"
            samples.mkdir()
            globals()[f"write_{'motions' if kind == 'motion' else kind}"](samples)
            os.environ["TMPDIR"] = folder
            outcomes = run(kind, samples, options.first, options.count, options.seed)
            bad += sum(outcomes[name] for name in ("traceback", "ended", "hang", "leftover"))
    print("pass" if not bad else "FAIL")
    return int(bad > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        kind, samples, *numbers = sys.argv[2:]
        work(kind, Path(samples), *map(int, numbers))
    else:
        sys.exit(main())

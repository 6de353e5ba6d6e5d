"""Peak memory of a clip of 1800 frames against one of 90:
`python benchmarks/clip_memory.py [--release demo]`."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import head, machine, model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--release", default="demo", help="a release, a folder, or tiny")
parser.add_argument("--frames", type=int, nargs=2, default=(90, 1800))
parser.add_argument("--steps", type=int)
parser.add_argument("--one", type=Path, help="draw this clip and print the peak of this process")
options = parser.parse_args()

if options.one:
    import resource

    from photos import toon

    from hellomeme.reenactor import Reenactor
    from hellomeme.settings import Settings

    reenactor = Reenactor.from_release(options.release, device="cpu")
    reenactor.set_reference(toon(3))
    report = reenactor.video(options.one, options.one.with_suffix(".out.mp4"), Settings(steps=options.steps))
    print(report.frames, report.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    sys.exit()

print(machine())
release, peaks = model(options.release), []
with tempfile.TemporaryDirectory() as folder:
    for frames in options.frames:
        driver = head(Path(folder) / f"{frames}.mp4", frames / 30)
        command = [sys.executable, __file__, "--release", release, "--one", driver]
        command += ["--steps", str(options.steps)] if options.steps else []
        began = time.monotonic()
        fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks.append(float(fields[2]))
        print(
            f"{fields[0]} frames: peak {peaks[-1]:.0f} MiB, {float(fields[1]):.0f} s "
            f"({time.monotonic() - began:.0f} s with loading)"
        )
print(f"ratio {peaks[1] / peaks[0]:.3f}")

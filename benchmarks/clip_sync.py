"""Picture against sound after a minute:
`python benchmarks/clip_sync.py [--release demo] [--rate 30000/1001]`.

The driver flashes and beeps once a second. The whole way through `Reenactor.video` is taken, side by side, so
that the flashes can be seen in the result; a stand-in for the face analyzer sees the same face in every
frame.
"""

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import machine, model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--release", default="demo", help="a release, a folder, or tiny")
parser.add_argument("--rate", type=Fraction, default=Fraction(30000, 1001))
parser.add_argument("--seconds", type=int, default=62)
options = parser.parse_args()

from clips import H264, ffmpeg, samples, stamps  # noqa: E402
from photos import toon  # noqa: E402

from hellomeme.face.detect import Face, FaceAnalyzer  # noqa: E402
from hellomeme.io.ffmpeg import read_frames  # noqa: E402
from hellomeme.reenactor import Reenactor  # noqa: E402
from hellomeme.settings import ClipSettings, Settings  # noqa: E402

HERTZ = 48000


class SameFace:
    def __init__(self) -> None:
        self.found = FaceAnalyzer().faces(toon(3))

    def faces(self, frame: np.ndarray, thorough: bool = False) -> list[Face]:
        return self.found

    def near(self, frame: np.ndarray, face: Face) -> Face:
        return self.found[0]

    def face(self, frame: np.ndarray, name: str = "driver", index: int | None = None) -> Face:
        return self.found[0]


def onsets(loud: np.ndarray, rate: Fraction) -> np.ndarray:
    """Where a flag goes up, in seconds."""
    return np.flatnonzero(loud[1:] & ~loud[:-1]) / float(rate) + 1 / float(rate)


def late(path: Path, rate: Fraction, columns: slice) -> np.ndarray:
    """By how many milliseconds each flash comes after its beep: up to a frame, as a flash begins with one."""
    bright = np.array([frame[:, columns].mean() > 128 for frame in read_frames(path, rate)])
    sound = np.abs(samples(path, HERTZ)) > 0.1
    loud = np.maximum.reduceat(sound, np.arange(0, len(sound), HERTZ // 1000))  # in milliseconds
    return (onsets(bright, rate) - onsets(loud, Fraction(1000))) * 1000


print(machine())
with tempfile.TemporaryDirectory() as folder:
    driver, output = Path(folder) / "driver.mp4", Path(folder) / "result.mp4"
    on = "lt(mod(t+0.5,1),0.2)"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        f"color=black:s=256x256:r={options.rate}:d={options.seconds},drawbox=c=white:t=fill:enable='{on}'",
        "-f",
        "lavfi",
        "-i",
        f"aevalsrc='{on}*sin(2*PI*2000*t)':d={options.seconds}:s={HERTZ}",
        *H264,
        driver,
    )
    reenactor = Reenactor.from_release(model(options.release), device="cpu")
    reenactor.analyzer = SameFace()
    reenactor.set_reference(toon(3))
    report = reenactor.video(
        driver, output, Settings(steps=1, guidance=1), ClipSettings(side_by_side=True, motion=False)
    )
    own = late(driver, options.rate, slice(None))
    made = late(output, report.rate, slice(reenactor.release.size))
    ends = [times[-1] + lengths[-1] for times, lengths in (stamps(output, "v"), stamps(output, "a"))]

frame = 1000 / float(report.rate)
print(
    f"{report.frames} frames at {report.rate} a second, {len(made)} flashes, {report.seconds:.0f} s; "
    f"a frame is {frame:.1f} ms"
)
for name, each in (("driver", own), ("result", made), ("result against driver", made - own)):
    print(
        f"{name}: flash after beep {each.mean():+.1f} ms in the mean, "
        f"{each.min():+.1f} to {each.max():+.1f}, {each[-1]:+.1f} after a minute"
    )
print(f"lengths: picture {float(ends[0]):.4f} s, sound {float(ends[1]):.4f} s")

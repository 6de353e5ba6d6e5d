"""Frames of a driver analysed per second of CPU time: `python benchmarks/analysis_rate.py [CLIP ...]`.

Each clip is brought to 720p and 1080p. Following the face, as clips are analysed, takes turns with looking
for it in each whole frame and then in its crop; the median counts. What both read of the same frames is
compared. Reading the frames from the file is not counted.
"""

import argparse
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import ROOT, machine  # first: it says where the tests are

# isort: split
from clips import H264, ffmpeg
from scipy.spatial.transform import Rotation

from hellomeme.face.detect import Face, FaceAnalyzer
from hellomeme.face.track import analyse
from hellomeme.io.ffmpeg import probe, read_frames

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("clips", nargs="*", type=Path, default=[ROOT / "examples" / "clips" / "talk.mp4"])
parser.add_argument("--frames", type=int, default=48)
parser.add_argument("--rounds", type=int, default=3)
options = parser.parse_args()


class Whole(FaceAnalyzer):
    """Looks at each frame as a whole."""

    def near(self, frame: np.ndarray, face: Face) -> None:
        return None


def seen(analyzer: FaceAnalyzer, frames: list[np.ndarray], rate: Fraction) -> tuple[dict[int, Face], float]:
    """The faces by the number of their frame, and seconds of CPU time a frame."""
    found, number = {}, {id(frame): k for k, frame in enumerate(frames)}
    began = time.process_time()
    analyse(frames, rate, analyzer, 2.0, see=lambda frame, face: found.update({number[id(frame)]: face}))
    return found, (time.process_time() - began) / len(frames)


print(machine())
followed, whole = FaceAnalyzer(), Whole()
for clip in options.clips:
    for height in (720, 1080):
        size = f"scale=-2:{height}:force_original_aspect_ratio=decrease"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "driver.mp4"
            ffmpeg(
                *("-i", clip, "-vf", f"{size},pad={height * 16 // 9}:{height}:(ow-iw)/2:0"),
                *("-frames:v", options.frames, "-an", *H264, path),
            )
            rate = probe(path).rate
            frames = list(read_frames(path, rate))
        for analyzer in (followed, whole):
            analyzer.faces(frames[0])
        rounds = [
            [seen(analyzer, frames, rate) for analyzer in (followed, whole)] for _ in range(options.rounds)
        ]
        (faces, _), (others, _) = rounds[0]
        fast, slow = (statistics.median(one[i][1] for one in rounds) for i in (0, 1))
        both = [(face, others[k]) for k, face in faces.items() if k in others]
        coefficients = np.abs([one.blendshapes - other.blendshapes for one, other in both])
        turns = [Rotation.from_matrix(one.rotation @ other.rotation.T).magnitude() for one, other in both]
        print(
            f"{clip.name}, {frames[0].shape[1]} x {height}: {1 / fast:.0f} frames a core-second, "
            f"{1 / slow:.0f} looking at whole frames; found in {len(faces)} and {len(others)} of "
            f"{len(frames)}; coefficients differ by {coefficients.mean():.4f} in the mean, "
            f"turns by {np.degrees(np.mean(turns)):.2f} degrees"
        )

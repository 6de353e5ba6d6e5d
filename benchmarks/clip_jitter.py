"""Trembling of the pose picture of a still face, before and after smoothing:
`python benchmarks/clip_jitter.py`.

The driver is one drawn head, as a noisy camera and H.264 bring it.
"""

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import head, machine

from hellomeme.face.conditions import pose_corners, pose_picture
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.smooth import smoothed
from hellomeme.face.track import analyse
from hellomeme.io.ffmpeg import read_frames

RATE = Fraction(30)

print(machine())
for noise in (6, 20):
    with tempfile.TemporaryDirectory() as folder, FaceAnalyzer() as analyzer:
        driver = head(Path(folder) / "still.mp4", 3, filters=f"scale=480:480,noise=alls={noise}:allf=t")
        motion, _ = analyse(read_frames(driver, RATE), RATE, analyzer, 2.0)
    for strength in (0, 0.25, 0.5, 1):
        calm = smoothed(motion, float(RATE), strength)
        picture = np.mean(
            [
                np.abs(np.diff(pair.astype(float), axis=0)).mean()
                for pair in (pose_picture(calm.at([t, t + 1])) for t in range(len(calm) - 1))
            ]
        )
        corners = np.linalg.norm(np.diff(pose_corners(calm), axis=0), axis=-1).mean()
        codes = np.abs(np.diff(calm.blendshapes, axis=0)).mean()
        print(
            f"noise {noise}, smoothing {strength}: between frames the pose picture differs by "
            f"{picture:.4f} of 255, its "
            f"corners move by {corners:.3f} px, coefficients by {codes:.5f}"
        )

"""How well MediaPipe reads the drawn heads: `python benchmarks/renderer.py [--heads 500] [--degrees 30]`.

Held-out identities with random expressions, and heads turned by up to so many degrees about each axis at
once. Printed are the share in which a face is found; for each control, over the heads found, the correlation
of what was rendered with what MediaPipe reads, and the line through them (read = slope * rendered +
offset); and how long a frame takes.
"""

import argparse
import time
from dataclasses import replace

import cv2
import numpy as np
from common import machine

from hellomeme.face.detect import FaceAnalyzer
from training.dataset import FIRST_IDENTITY, RENDER_SIZE
from training.readings import ANGLES, FEWEST, FOLLOWED, control, correlation
from training.toon import Pose, make_identity, random_expression, render
from training.toon.camera import rotation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=500)
    parser.add_argument("--degrees", type=float, default=30, help="largest yaw, pitch and roll")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print(machine())

    names, pairs, missed = (*ANGLES, *FOLLOWED), [], []
    seconds = {"drawing": 0.0, "reading": 0.0}
    with FaceAnalyzer() as analyzer:
        analyzer.faces(np.zeros((64, 64, 3), np.uint8))  # starts MediaPipe
        for seed in range(FIRST_IDENTITY["heldout"], FIRST_IDENTITY["heldout"] + args.heads):
            rng = np.random.default_rng([seed, 2])
            identity, expression = make_identity(seed), random_expression(rng)
            pose = Pose(*rng.uniform(-args.degrees, args.degrees, 3))
            began = time.perf_counter()
            picture = render(identity, expression, pose, RENDER_SIZE, supersample=1)
            drawn = time.perf_counter()
            faces = analyzer.faces(picture)
            seconds["drawing"] += drawn - began
            seconds["reading"] += time.perf_counter() - drawn
            if faces:
                rendered = replace(faces[0], blendshapes=expression, rotation=rotation(pose))
                pairs.append([[control(face, name) for name in names] for face in (rendered, faces[0])])
            else:
                missed.append(pose)

    found = len(pairs) / args.heads
    print(f"\nA face is found in {found:.1%} of {args.heads} heads turned by up to {args.degrees:g} degrees.")
    for pose in missed:
        print(f"  not at yaw {pose.yaw:.0f}, pitch {pose.pitch:.0f}, roll {pose.roll:.0f}")
    if len(pairs) >= FEWEST:
        print("\n| control | correlation | slope | offset |\n|---|---|---|---|")
        for name, (rendered, read) in zip(names, np.transpose(pairs, (2, 1, 0)), strict=True):
            if np.ptp(rendered) == 0:  # a few heads may all be without it
                print(f"| {name} | was not rendered | | |")
                continue
            slope, offset = np.polyfit(rendered, read, 1)
            print(f"| {name} | {correlation(rendered, read):.2f} | {slope:.2f} | {offset:.2f} |")
    else:
        print(f"\nFewer than {FEWEST} faces say nothing of the controls: render more heads.")
    for what, total in seconds.items():
        print(f"\n{what}: {args.heads / total:.1f} frames of {RENDER_SIZE} px a second, on one core")


if __name__ == "__main__":
    main()

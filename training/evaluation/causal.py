"""One control changed: does the picture change where and as the renderer's picture does?

Over random pairs, correlations can also come from controls that usually change together. Here a driver is
rendered twice, at rest and with one control changed; both drive the same reference from the same noise.
"""

from __future__ import annotations

import numpy as np

from training.evaluation.bench import Bench, shoot
from training.readings import control, correlation, read_back
from training.toon import Pose, coefficients

# name: coefficients raised, pose, and the reading that should change
CHANGES = {
    "jaw": (dict(jawOpen=0.8), Pose(), "jawOpen"),
    "blink": (dict(eyeBlink=1.0), Pose(), "blink left"),
    "smile": (dict(mouthSmile=1.0), Pose(), "smile"),
    "yaw": ({}, Pose(yaw=25), "yaw"),
    "roll": ({}, Pose(roll=15), "roll"),
}


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(...) uint8 pictures to the flat difference of their pixels."""
    return (after.astype(float) - before).ravel()


def causal(bench: Bench) -> tuple[dict[str, dict[str, float]], list[np.ndarray]]:
    """Figures by change, and a strip (S, W, 3) for each of the first identities, to look at.

    picture: correlation over pixels between the change of the output and that of the renderer's picture, mean
    over identities. ceiling: the same for the renderer's pictures through the autoencoder. gain: how much of
    the renderer's change is made (1 is all). read of render, read of output: mean change of what MediaPipe
    reads, in units of the coefficient or degrees. Identities in whose drivers MediaPipe finds no face are
    left out.
    """
    rows = {name: [] for name in CHANGES}
    strips = []
    for pair in bench.pairs:
        before = shoot(pair.identity, coefficients({}), Pose(), bench.analyzer)
        after = {
            name: shoot(pair.identity, coefficients(e), pose, bench.analyzer)
            for name, (e, pose, _) in CHANGES.items()
        }
        after = {name: shot for name, shot in after.items() if shot}
        if before is None:
            continue
        reference = bench.prepare(pair.reference)
        shots = [before, *after.values()]
        truth = bench.small(shot.frame for shot in shots)
        outputs = np.stack([bench.draw(reference, shot.motion) for shot in shots])
        ceiling, faces = bench.reconstruct(truth), read_back(outputs, bench.analyzer)
        for i, name in enumerate(after, start=1):
            reading = CHANGES[name][2]
            wanted, made = change(truth[0], truth[i]), change(outputs[0], outputs[i])
            row = {
                "picture": correlation(made, wanted),
                "ceiling": correlation(change(ceiling[0], ceiling[i]), wanted),
                "gain": made @ wanted / (wanted @ wanted),
                "read of render": control(shots[i].face, reading) - control(before.face, reading),
            }
            if faces[0] and faces[i]:
                row["read of output"] = control(faces[i], reading) - control(faces[0], reading)
            rows[name].append(row)
        if len(after) == len(CHANGES):
            strips.append(np.vstack([np.hstack(truth), np.hstack(outputs)]))
    figures = {}
    for name, found in rows.items():
        columns = dict.fromkeys(key for row in found for key in row)
        figures[name] = {key: np.mean([row[key] for row in found if key in row]) for key in columns}
    return figures, strips[:4]

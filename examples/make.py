"""Draw the examples of the page: characters to bring to life, and faces and clips that drive them.

    python -m examples.make

All of them come from the toon renderer in `training/toon`. The characters are in the training data
(`training.dataset.CAST`); those who drive them are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from hellomeme.io.ffmpeg import ClipWriter
from training.dataset import FIRST_IDENTITY
from training.toon import Pose, coefficients, make_identity, render

HERE = Path(__file__).parent
SIZE = 512  # px
FIRST = FIRST_IDENTITY["cast"]

# name: number of the identity
CHARACTERS = {"iris": 8, "otto": 10, "mila": 11, "kofi": 13, "june": 17, "nova": 22, "tariq": 28, "rufus": 32}
# name: (number of the identity, head pose in degrees, ARKit coefficients; a name without a side means both)
FACES = {
    "laugh": (16, dict(yaw=-8, pitch=2, roll=8), dict(jawOpen=0.8, mouthSmile=0.9, browInnerUp=0.3)),
    "wink": (20, dict(yaw=12, pitch=6, roll=-10), dict(mouthSmile=0.7, eyeBlinkLeft=1.0)),
    "shocked": (31, dict(pitch=2), dict(jawOpen=1.0, eyeWide=1.0, browInnerUp=0.9, browOuterUp=0.8)),
    "sad": (19, dict(yaw=-14, pitch=12, roll=-6), dict(mouthFrown=1.0, browInnerUp=0.9, eyeBlink=0.3)),
    "asleep": (12, dict(yaw=6, pitch=14, roll=14), dict(eyeBlink=1.0)),
    "away": (29, dict(yaw=30, pitch=4), dict(mouthSmile=0.5)),
    "kiss": (5, dict(yaw=-16, roll=8), dict(mouthPucker=1.0, eyeBlink=0.9)),
    "grumpy": (6, dict(yaw=-4, pitch=10, roll=-4), dict(browDown=1.0, mouthFrown=0.7, eyeSquint=0.6)),
}
RATE, SECONDS, CLIP_SIZE = 24, 3.5, 320  # frames a second, length, px
# name: (number of the identity, what moves: pose or ARKit name -> (second, value), ...); they end as they
# begin
CLIPS = {
    "talk": (24, {
        "yaw": ((0.4, 0), (1.1, -14), (1.7, -9), (2.6, 12), (3.3, 0)),
        "pitch": ((0, 3), (0.9, 7), (1.6, 0), (2.4, 6), (3.3, 3)),
        "roll": ((0.3, 0), (1.2, -5), (2.7, 5), (3.4, 0)),
        "jawOpen": tuple(zip(
            (0.2, 0.34, 0.5, 0.62, 0.8, 0.95, 1.1, 1.3, 1.5, 1.64, 1.8, 1.96, 2.1, 2.3, 2.5, 2.7, 2.9, 3.2),
            (0, 0.6, 0.15, 0.75, 0.1, 0.5, 0.05, 0.05, 0.8, 0.2, 0.65, 0.1, 0.55, 0.15, 0.9, 0.3, 0.5, 0),
            strict=True,
        )),
        "mouthSmile": ((0, 0.2), (1.3, 0.1), (2.4, 0.6), (3.4, 0.2)),
        "mouthPucker": ((0.6, 0), (0.8, 0.5), (1.0, 0), (1.85, 0), (2.0, 0.45), (2.15, 0)),
        "eyeBlink": ((0.95, 0), (1.06, 1), (1.22, 0), (2.65, 0), (2.76, 1), (2.92, 0)),
        "browInnerUp": ((1.3, 0), (1.6, 0.7), (2.2, 0)),
    }),
    "look": (16, {
        "yaw": ((0.2, 0), (0.9, -28), (1.3, -28), (2.2, 26), (2.6, 26), (3.3, 0)),
        "pitch": ((0.2, 2), (0.9, -4), (1.5, 9), (2.2, -3), (3.3, 2)),
        "eyeBlink": ((1.35, 0), (1.5, 1), (1.7, 0)),
        "eyeWide": ((0.5, 0), (0.9, 0.7), (1.3, 0)),
        "browOuterUp": ((0.5, 0), (0.9, 0.8), (1.3, 0)),
        "jawOpen": ((2.1, 0), (2.4, 0.75), (2.8, 0)),
        "mouthSmile": ((0, 0.1), (1.9, 0.1), (2.4, 0.9), (3.0, 0.7), (3.45, 0.1)),
    }),
}  # fmt: skip  # moments and values in pairs


def draw(number: int, pose: dict[str, float], expression: dict[str, float], size: int = SIZE) -> np.ndarray:
    """(size, size, 3) uint8."""
    head = Pose(**{"yaw": 0, "pitch": 0, "roll": 0, "tx": 0, "ty": 0, "scale": 1} | pose)
    return render(make_identity(FIRST + number), coefficients(expression), head, size, 2)


def eased(second: float, stops: tuple[tuple[float, float], ...]) -> float:
    """The value at a moment, going gently from one stop to the next; the first and the last hold."""
    times, values = zip(*stops, strict=True)
    place = np.interp(second, times, np.arange(len(times)))
    i = min(int(place), len(times) - 2)
    share = place - i
    return values[i] + share * share * (3 - 2 * share) * (values[i + 1] - values[i])


def frames(number: int, moving: dict[str, tuple]) -> Iterator[np.ndarray]:
    """The frames of a clip."""
    for frame in range(round(SECONDS * RATE)):
        now = {name: eased(frame / RATE, stops) for name, stops in moving.items()}
        pose = {name: now.pop(name) for name in ("yaw", "pitch", "roll") if name in now}
        yield draw(number, pose, now, CLIP_SIZE)


def main() -> None:
    for folder in ("references", "drivers", "clips"):
        (HERE / folder).mkdir(exist_ok=True)
    for name, number in CHARACTERS.items():
        picture = Image.fromarray(draw(number, dict(pitch=4), dict(mouthSmile=0.15)))
        picture.save(HERE / "references" / f"{name}.png", optimize=True)
    for name, (number, pose, expression) in FACES.items():
        Image.fromarray(draw(number, pose, expression)).save(HERE / "drivers" / f"{name}.png", optimize=True)
    for name, (number, moving) in CLIPS.items():
        with ClipWriter(HERE / "clips" / f"{name}.mp4", Fraction(RATE)) as writer:
            for frame in frames(number, moving):
                writer.write(frame)


if __name__ == "__main__":
    main()

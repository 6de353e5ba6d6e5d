"""Draw the example pictures of the page: characters to bring to life, and faces that drive them.

    python -m examples.make

All of them come from the toon renderer in `training/toon`, with identities that no training run uses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hellomeme.arkit import INDEX
from training.toon import Pose, make_identity, render

HERE = Path(__file__).parent
SIZE = 512  # px
FIRST = 3_000_000  # identities beyond every split of the training data

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


def coefficients(named: dict[str, float]) -> np.ndarray:
    """(51,) float32 from ARKit names; a name without a side stands for both."""
    values = np.zeros(len(INDEX), np.float32)
    for name, value in named.items():
        for full in (name,) if name in INDEX else (name + "Left", name + "Right"):
            values[INDEX[full]] = value
    return values


def draw(number: int, pose: dict[str, float], expression: dict[str, float]) -> Image.Image:
    head = Pose(**{"yaw": 0, "pitch": 0, "roll": 0, "tx": 0, "ty": 0, "scale": 1} | pose)
    return Image.fromarray(render(make_identity(FIRST + number), coefficients(expression), head, SIZE, 2))


def main() -> None:
    for folder in ("references", "drivers"):
        (HERE / folder).mkdir(exist_ok=True)
    for name, number in CHARACTERS.items():
        draw(number, dict(pitch=4), dict(mouthSmile=0.15)).save(HERE / "references" / f"{name}.png", optimize=True)
    for name, (number, pose, expression) in FACES.items():
        draw(number, pose, expression).save(HERE / "drivers" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

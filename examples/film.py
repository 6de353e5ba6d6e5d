"""Draw the example clips on some example characters, each beside its driver: examples/films, which the page's
gallery shows, and docs/clips.webp, a picture that moves.

    python -m examples.film
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from hellomeme import ClipSettings, Reenactor
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import ClipWriter, read_frames

HERE = Path(__file__).parent
FILMS = HERE / "films"
OUTPUT = HERE.parent / "docs" / "clips.webp"
CHARACTERS = ("iris", "otto", "nova", "rufus")
RATE = 24  # frames a second, the drivers' own
EVERY = 2  # of whose frames one goes into the picture that moves


def main() -> None:
    reenactor, rows = Reenactor.from_release("demo"), []
    settings = ClipSettings(rate=str(RATE), side_by_side=True)
    with tempfile.TemporaryDirectory() as folder:
        for clip in sorted((HERE / "clips").glob("*.mp4")):
            columns = []
            for name in CHARACTERS:
                reenactor.set_reference(HERE / "references" / f"{name}.png")
                report = reenactor.video(clip, Path(folder) / "strip.mp4", clip=settings)
                strip = np.stack(list(read_frames(report.path, Fraction(RATE))))  # driver, pose and result
                side = reenactor.release.size
                columns += (
                    [strip[:, :, 2 * side :]] if columns else [strip[:, :, :side], strip[:, :, 2 * side :]]
                )
            rows.append(np.concatenate(columns, axis=2))
            FILMS.mkdir(exist_ok=True)
            stamp = metadata.read(report.path)  # the last character's; that it is AI-generated holds for all
            with ClipWriter(FILMS / clip.name, Fraction(RATE), tags=stamp.clip_tags) as writer:
                for frame in rows[-1]:
                    writer.write(frame)
    length = min(map(len, rows))
    sheet = np.concatenate([row[:length:EVERY] for row in rows], axis=1)
    first, *others = map(Image.fromarray, sheet)
    first.save(
        OUTPUT,
        save_all=True,
        append_images=others,
        duration=1000 * EVERY // RATE,
        loop=0,
        quality=65,
        method=6,
    )


if __name__ == "__main__":
    main()

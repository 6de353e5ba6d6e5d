"""Draw all results that are shipped with the demo model anew: those that the page opens with, and the
pictures of the readme (`examples.grid`, `examples.film`).

    python -m examples.results

The page opens with `examples/results`: every character with every face as small pictures, of which one stands
in the Image tab and all in the gallery, and a clip. They carry their settings like every result. The
Expression tab opens with a character's own face, of which the values are there, too, and offers the presets
that come over when the model draws them, which `training.evaluation.presets` measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hellomeme import ClipSettings, Reenactor
from hellomeme.face.edit import Edit, start
from hellomeme.io import metadata
from training.evaluation import presets

from . import film, grid

HERE = Path(__file__).parent
RESULTS = HERE / "results"
REFERENCE, CLIP = "june", "talk"  # of the clip, which has the settings that the page opens with


def pictures(reenactor: Reenactor, folder: Path, characters: list[str], faces: list[str]) -> Iterator[Path]:
    """Draws each character with each face, by their names, and yields the files in `folder`."""
    for character in characters:
        reenactor.set_reference(HERE / "references" / f"{character}.png")
        for face in faces:
            result = reenactor.image(HERE / "drivers" / f"{face}.png")
            path = folder / f"{character}-{face}.webp"
            metadata.save(result.picture, path, result.stamp, overwrite=True)
            yield path


def own_faces(reenactor: Reenactor, folder: Path, characters: list[str]) -> Iterator[Path]:
    """Writes the expression that each character's picture shows, and yields the files in `folder`."""
    for character in characters:
        motion = reenactor.portrait(HERE / "references" / f"{character}.png", "reference").motion
        path = folder / f"{character}-own.json"
        Edit(coefficients=start(motion)).save(path)
        yield path


def own_picture(reenactor: Reenactor, path: Path) -> None:
    """Draws the character that the page opens with, with its own face."""
    portrait = reenactor.set_reference(HERE / "references" / f"{REFERENCE}.png")
    result = reenactor.expression(start(portrait.motion))
    metadata.save(result.picture, path, result.stamp, overwrite=True)


def clip(reenactor: Reenactor, path: Path, **settings) -> None:
    """Draws the clip. settings: other ones of `ClipSettings` than the page opens with."""
    reenactor.set_reference(HERE / "references" / f"{REFERENCE}.png")
    reenactor.video(HERE / "clips" / f"{CLIP}.mp4", path, clip=ClipSettings(**settings))


def main() -> None:
    RESULTS.mkdir(exist_ok=True)
    names = (sorted(path.stem for path in (HERE / kind).glob("*.png")) for kind in ("references", "drivers"))
    reenactor = Reenactor.from_release("demo")
    names = list(names)
    list(pictures(reenactor, RESULTS, *names))
    list(own_faces(reenactor, RESULTS, names[0]))
    own_picture(reenactor, RESULTS / f"{REFERENCE}-own.webp")
    clip(reenactor, RESULTS / f"{REFERENCE}-{CLIP}.mp4")
    grid.main()
    film.main()
    presets.main(["--write"])


if __name__ == "__main__":
    main()

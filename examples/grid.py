"""Draw every example character with every example face, as the page would: docs/examples.jpg.

python -m examples.grid
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from hellomeme import Reenactor

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "docs" / "examples.jpg"


def main() -> None:
    reenactor = Reenactor.from_release("demo")
    side = reenactor.release.size
    characters = sorted((HERE / "references").glob("*.png"))
    faces = sorted((HERE / "drivers").glob("*.png"))
    sheet = Image.new("RGB", (side * (len(faces) + 1), side * (len(characters) + 1)), "white")
    for column, face in enumerate(faces, 1):
        sheet.paste(reenactor.portrait(face).picture, (column * side, 0))
    for row, character in enumerate(characters, 1):
        sheet.paste(reenactor.set_reference(character).picture, (0, row * side))
        for column, face in enumerate(faces, 1):
            sheet.paste(reenactor.image(face).picture, (column * side, row * side))
    sheet.save(OUTPUT, quality=88)


if __name__ == "__main__":
    main()

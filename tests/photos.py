"""Picture files as people have them: what the command line and the page are tried with."""

import numpy as np
from PIL import Image

NO_FACE = (
    "No face found in the driver picture: choose one that shows a face clearly, upright and not too small."
)
# file -> the sentence for it as a driver picture; {path} is its own path
BAD = {
    "no face.png": NO_FACE,
    "text.png": (
        "The driver picture text.png is not a picture that can be read: choose a PNG, JPEG or WebP file."
    ),
    "one pixel.png": "The driver picture is only 1 x 1 pixels: choose one of at least 32 x 32.",
    "missing.png": "The driver picture {path} does not exist: check the path.",
    "cut off.png": "The driver picture is damaged or cut off: save or download it again.",
    "folder.png": "The driver picture {path} is a folder: choose a picture in it.",
    "huge.png": "The driver picture has more than 150 million pixels: reduce it first.",
    "large and empty.jpg": NO_FACE,
}
# file -> the plain file that it must count the same as
ODD = {
    "turned by exif.png": "face.png",
    "alpha.png": "face.png",
    "16 bit.png": "grey.png",
    "palette.png": "palette as rgb.png",
}
LARGE = "large.jpg"  # 12000 x 9000


def toon(seed, **pose):
    """A drawn head with a calm face, (256, 256, 3) uint8."""
    from training.toon import Pose, make_identity, render

    return render(make_identity(seed), np.zeros(51), Pose(**pose), size=256)


def write_pictures(folder):
    """Writes all of the above and "reference.png" into the folder."""
    face = Image.fromarray(toon(3))
    face.save(folder / "reference.png")
    face = Image.fromarray(toon(5, yaw=12))
    grey = np.asarray(face.convert("L"))
    indexed = face.quantize(64)
    upright = Image.Exif()
    upright[0x0112] = 6  # stored lying on its side, to be turned clockwise
    face.save(folder / "face.png")
    face.transpose(Image.Transpose.ROTATE_90).save(folder / "turned by exif.png", exif=upright)
    face.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "16 bit.png")
    indexed.save(folder / "palette.png")
    indexed.convert("RGB").save(folder / "palette as rgb.png")
    large = Image.new("RGB", (12000, 9000), "grey")
    large.paste(face.resize((9000, 9000)), (1500, 0))
    large.save(folder / LARGE, quality=50)

    Image.new("RGB", (200, 200), "teal").save(folder / "no face.png")
    (folder / "text.png").write_text("This is not a picture.")
    Image.new("RGB", (1, 1)).save(folder / "one pixel.png")
    (folder / "cut off.png").write_bytes((folder / "face.png").read_bytes()[:3000])
    (folder / "folder.png").mkdir()
    Image.new("1", (20000, 16000)).save(folder / "huge.png")
    Image.new("L", (12000, 9000), 128).save(folder / "large and empty.jpg", quality=50)
    return folder

"""What a result's file says of itself: its settings, so that they can be restored, and that it was
AI-generated.

PNG files carry it in text chunks, JPEG and WebP files in EXIF, clips in the comment of the container. Only
numbers and the user's own words are stored: no paths, no names of files, nothing of the pictures that went in
but the coefficients that an edited face took over from them, and the digest by which a batch knows its own
pictures again.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from ..settings import ClipSettings, Settings
from .atomic import draft_of

if TYPE_CHECKING:
    from PIL import Image

    from ..face.edit import Edit

LABEL = "AI-generated"
KEY = "hellomeme"  # of the PNG chunk, and what the JSON begins with
VERSION = 1
LONGEST = 1 << 16  # letters: a stamp has some 1,000
FORMATS = {".png": {}, ".jpg": {"quality": 95}, ".jpeg": {"quality": 95}, ".webp": {"quality": 95}}
CLIPS = (".mp4", ".mov", ".m4v")
# EXIF tags; COMMENT lies in the EXIF block
DESCRIPTION, SOFTWARE, EXIF, COMMENT = 0x010E, 0x0131, 0x8769, 0x9286
ASCII = b"ASCII\0\0\0"  # how an EXIF user comment says its encoding


@dataclass(frozen=True)
class Stamp:
    """settings: with every choice made. release: its name. clip: of a clip only.
    labelled: whether the file says that it was AI-generated. edit: of a face edited without a driver only.
    made_from: of a batch only, see `cli.jobs.made_from`."""

    settings: Settings
    release: str
    clip: ClipSettings | None = None
    labelled: bool = True
    edit: Edit | None = None
    made_from: str | None = None

    @property
    def text(self) -> str:
        """The stamp as one line of ASCII: JSON, which also says that the file was AI-generated."""
        facts = {KEY: VERSION, "release": self.release, "settings": dataclasses.asdict(self.settings)}
        if self.clip is not None:
            facts["clip"] = dataclasses.asdict(self.clip)
        if self.edit is not None:
            facts["edit"] = {name: value for name, value in self.edit.values.items() if value}  # most are 0
        if self.made_from is not None:
            facts["made_from"] = self.made_from
        return json.dumps({**facts, "label": LABEL} if self.labelled else facts)

    @classmethod
    def parse(cls, text: str) -> Stamp | None:
        """The stamp of a text, None for a text of something else; HelloMemeError for a damaged one."""
        if not text.startswith(f'{{"{KEY}":'):
            return None
        try:
            if len(text) > LONGEST:
                raise ValueError("too long")
            facts = json.loads(text)
            release, clip = facts["release"], facts.get("clip")
            made_from = facts.get("made_from")
            if facts[KEY] != VERSION or not isinstance(release, str) or len(release) > 200:
                raise ValueError("version or release")
            return cls(
                _made(Settings, facts["settings"]),
                release,
                None if clip is None else _made(ClipSettings, clip),
                facts.get("label") == LABEL,
                _edit(facts.get("edit")),
                None if made_from is None else str(made_from),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HelloMemeError(
                "The settings in this file are damaged or of another version: set them by hand."
            ) from error

    def clip_arguments(self) -> list[str]:
        """For ffmpeg, in front of an output file: what an MP4 file should say of itself."""
        title = ["-metadata", f"description={LABEL} with HelloMeme"] if self.labelled else []
        return [*title, "-metadata", f"comment={self.text}"]


def save(picture: Image.Image, path: str | Path, stamp: Stamp | None, overwrite: bool = False) -> None:
    """Writes a PNG, JPEG or WebP picture with its stamp.

    It is written beside its place first and then moved there, so that no half file is ever seen. Raises
    HelloMemeError if that fails, or if the file exists and `overwrite` is not set.
    """
    suffix = Path(path).suffix.lower()
    kind = {".jpg": "jpeg"}.get(suffix, suffix[1:])
    with draft_of(path, "output", overwrite) as draft:
        encoded = io.BytesIO()  # PIL itself would not notice where a disk takes only part of a JPEG file
        picture.save(
            encoded, format=kind, **FORMATS[suffix], **({} if stamp is None else _options(kind, stamp))
        )
        draft.write_bytes(encoded.getbuffer())


def read(path: str | Path) -> Stamp | None:
    """The stamp of a picture or clip, None if it has none; HelloMemeError for a damaged one or no such
    file."""
    path = Path(path)
    if not os.path.isfile(path):
        raise HelloMemeError(f"There is no file {path}: check the path.")
    for text in _clip_texts(path) if path.suffix.lower() in CLIPS else _picture_texts(path):
        if (stamp := Stamp.parse(text)) is not None:
            return stamp
    return None


def _made(kind: type, values: dict):
    """Settings of values by name. Names of a later version are passed over, values are checked."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def _edit(values: dict | None) -> Edit | None:
    """The edit of a stamp. Names that are not known would change the face: they are not passed over."""
    if values is None:
        return None
    from ..face.edit import Edit  # only here, as NumPy and OpenCV come with it

    return Edit.parse(values)


def _options(kind: str, stamp: Stamp) -> dict:
    """Arguments of PIL's `save` that put the stamp into a file."""
    if kind == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("Software", "HelloMeme")
        if stamp.labelled:
            info.add_text("Comment", LABEL)
        info.add_text(KEY, stamp.text)
        return {"pnginfo": info}
    from PIL import Image

    exif = Image.Exif()
    exif[SOFTWARE] = "HelloMeme"
    if stamp.labelled:
        exif[DESCRIPTION] = LABEL
    exif.get_ifd(EXIF)[COMMENT] = ASCII + stamp.text.encode("ascii")
    return {"exif": exif}


def _picture_texts(path: Path) -> list[str]:
    """Where the stamp of a picture may stand; nothing for a file that is no picture."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            texts, exif = [picture.info.get(KEY)], Image.Exif()
            exif.load(picture.info.get("exif", b""))  # `getexif` would decode the pixels of a PNG first
            comment = exif.get_ifd(EXIF).get(COMMENT)
    except Exception:  # decoders of damaged files raise nearly anything
        return []
    if isinstance(comment, bytes):
        texts.append(comment.removeprefix(ASCII).decode("ascii", "replace"))
    return [text for text in texts if isinstance(text, str)]


def _clip_texts(path: Path) -> list[str]:
    """The comment of a clip; nothing for a file that is no clip."""
    from .ffmpeg import _ffmpeg, _input

    command = [*_ffmpeg(), *_input(path), "-f", "ffmetadata", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        told = process.stdout.read(4 * LONGEST).decode("utf-8", "replace")
        process.kill()
    # A line each; the format puts a backslash before what has a meaning to it, ends of lines included.
    found = re.search(r"^comment=((?:[^\\\n]|\\.)*)", told, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)] if found else []

"""Metadata of result files: the settings, so that they can be restored, and the label "AI-generated".

It is in text chunks of PNG files, in EXIF of JPEG and WebP files, and in the comment of clips. It holds the
settings and the user's own text: no paths, no names of files but those of weights, and
of the input pictures only the coefficients of an edited face and the digest by which a batch recognises its
own results.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import HelloMemeError
from ..releases.styles import Style
from ..settings import ClipSettings, Settings
from .atomic import atomic_write

if TYPE_CHECKING:
    from PIL import Image

    from ..face.edit import Edit

T = TypeVar("T")
LABEL = "AI-generated"
KEY = "hellomeme"  # of the PNG chunk, and the first key of the JSON
VERSION = 1
# Settings that only stamps with another value than the default have
LATER = ("few_steps", "upscale", "reuse", "guidance_end")
MAX_LENGTH = 1 << 16  # characters: a stamp has about 1,000
FORMATS = {".png": {}, ".jpg": {"quality": 95}, ".jpeg": {"quality": 95}, ".webp": {"quality": 95}}
CLIPS = (".mp4", ".mov", ".m4v")
# EXIF tags; COMMENT is in the Exif IFD
DESCRIPTION, SOFTWARE, EXIF, COMMENT = 0x010E, 0x0131, 0x8769, 0x9286
ASCII = b"ASCII\0\0\0"  # character code of an EXIF user comment


@dataclass(frozen=True)
class Stamp:
    """What the metadata of a result file says.

    settings: resolved ones. release: its name. clip: for clips only. labelled: whether the file says that it
    was AI-generated. edit: for a face that was edited without a driver. made_from: for pictures of a batch,
    see `cli.jobs.made_from`. style: the weights that drew; of files on the maker's computer only the names.
    """

    settings: Settings
    release: str
    clip: ClipSettings | None = None
    labelled: bool = True
    edit: Edit | None = None
    made_from: str | None = None
    style: Style = Style()

    @property
    def text(self) -> str:
        """The stamp as one line of JSON, in ASCII."""
        settings = dataclasses.asdict(self.settings)
        for name in LATER:
            if settings[name] == getattr(Settings, name):
                del settings[name]
        facts = {KEY: VERSION, "release": self.release, "settings": settings}
        if self.clip is not None:
            clip = dataclasses.asdict(self.clip)
            facts["clip"] = {name: value for name, value in clip.items() if (name, value) != ("end", None)}
        if self.edit is not None:
            facts["edit"] = {name: value for name, value in self.edit.values.items() if value}  # most are 0
        if self.made_from is not None:
            facts["made_from"] = self.made_from
        if style := self.style.facts:
            facts["style"] = style
        return json.dumps({**facts, "label": LABEL} if self.labelled else facts)

    @classmethod
    def parse(cls, text: str) -> Stamp | None:
        """The inverse of `text`; None for any other text. Raises HelloMemeError for a damaged stamp."""
        if not text.startswith(f'{{"{KEY}":'):
            return None
        try:
            if len(text) > MAX_LENGTH:
                raise ValueError("too long")
            facts = json.loads(text)
            release, clip = facts["release"], facts.get("clip")
            made_from = facts.get("made_from")
            if facts[KEY] != VERSION or not isinstance(release, str) or len(release) > 200:
                raise ValueError("version or release")
            return cls(
                _settings_from(Settings, facts["settings"]),
                release,
                None if clip is None else _settings_from(ClipSettings, clip),
                facts.get("label") == LABEL,
                _edit(facts.get("edit")),
                None if made_from is None else str(made_from),
                Style.from_facts(facts.get("style", {})),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HelloMemeError(
                "The settings in this file are damaged or of another version: set them by hand."
            ) from error

    @property
    def clip_tags(self) -> dict[str, str]:
        """The metadata of an MP4 file with this stamp."""
        title = {"description": f"{LABEL} with HelloMeme"} if self.labelled else {}
        return {**title, "comment": self.text}


def save(picture: Image.Image, path: str | Path, stamp: Stamp | None, overwrite: bool = False) -> None:
    """Writes a PNG, JPEG or WebP file with its stamp and the profile of sRGB, atomically.

    The suffix of `path`, one of FORMATS, chooses the format. Raises HelloMemeError if writing fails, or if
    the file exists and `overwrite` is False.
    """
    suffix = Path(path).suffix.lower()
    kind = {".jpg": "jpeg"}.get(suffix, suffix[1:])
    from .colour import SRGB_PROFILE

    options = FORMATS[suffix] | ({} if stamp is None else _options(kind, stamp))
    with atomic_write(path, "output", overwrite) as draft:
        encoded = io.BytesIO()  # PIL does not notice when a full disk cuts off a JPEG file
        picture.save(encoded, format=kind, icc_profile=SRGB_PROFILE, **options)
        draft.write_bytes(encoded.getbuffer())


def read(path: str | Path) -> Stamp | None:
    """The stamp of a picture or clip, None if it has none. Raises HelloMemeError for a damaged stamp or a
    missing file."""
    path = Path(path)
    if not os.path.isfile(path):
        raise HelloMemeError(f"There is no file {path}: check the path.")
    for text in _clip_texts(path) if path.suffix.lower() in CLIPS else _picture_texts(path):
        if (stamp := Stamp.parse(text)) is not None:
            return stamp
    return None


def _settings_from(kind: type[T], values: dict) -> T:
    """A settings dataclass from values by name. Unknown names, of a later version, are ignored."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def _edit(values: dict | None) -> Edit | None:
    """The edit of a stamp. Unknown names raise HelloMemeError: without them the face would differ."""
    if values is None:
        return None
    from ..face.edit import Edit  # not at the top: it imports NumPy and SciPy

    return Edit.parse(values)


def _options(kind: str, stamp: Stamp) -> dict:
    """The arguments of PIL's `save` that put the stamp into a file."""
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
    """The texts of a picture file that may hold a stamp; none for a file that is no picture."""
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
    """The comment of a clip; none for a file that is no clip."""
    from .ffmpeg import read_comment

    return [read_comment(path)]

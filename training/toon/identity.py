"""Who is drawn: the parameters of one toon person, and a caption in words."""

import colorsys
from dataclasses import dataclass

import numpy as np

SKINS = np.array(
    [[255, 226, 204], [250, 208, 174], [236, 184, 144], [208, 152, 110], [166, 110, 76], [122, 80, 58]]
)
# name: ranges of hue, saturation, value
HAIRS = {
    "black": ((0.60, 0.70), (0.10, 0.30), (0.13, 0.24)),
    "brown": ((0.05, 0.08), (0.50, 0.72), (0.28, 0.50)),
    "blond": ((0.105, 0.13), (0.42, 0.62), (0.80, 0.95)),
    "red": ((0.02, 0.05), (0.70, 0.85), (0.60, 0.82)),
    "grey": ((0.58, 0.62), (0.00, 0.06), (0.62, 0.80)),
    "blue": ((0.56, 0.63), (0.50, 0.70), (0.60, 0.85)),
    "pink": ((0.90, 0.95), (0.40, 0.60), (0.80, 0.95)),
    "green": ((0.36, 0.45), (0.45, 0.65), (0.50, 0.72)),
    "purple": ((0.74, 0.79), (0.40, 0.60), (0.55, 0.80)),
}
HAIR_ODDS = (0.22, 0.26, 0.16, 0.13, 0.05, 0.05, 0.05, 0.03, 0.05)
PAINTS = {
    "red": (0.00, 0.70, 0.80),
    "orange": (0.07, 0.70, 0.92),
    "yellow": (0.13, 0.60, 0.95),
    "green": (0.36, 0.50, 0.65),
    "teal": (0.49, 0.50, 0.65),
    "blue": (0.59, 0.55, 0.82),
    "purple": (0.76, 0.42, 0.70),
    "pink": (0.93, 0.36, 0.93),
    "grey": (0.60, 0.06, 0.62),
    "white": (0.10, 0.04, 0.95),
    "dark": (0.62, 0.25, 0.25),
}
IRISES = ((0.07, 0.70, 0.40), (0.58, 0.65, 0.72), (0.34, 0.55, 0.55), (0.08, 0.65, 0.26))
GLASSES = ("", "round glasses", "square glasses", "oval glasses")
STYLES_WOMAN = ("long", "bob", "bangs", "bun", "curly", "ponytail")
STYLES_MAN = ("short", "side", "spiky", "buzz", "curly", "bald")
STYLE_WORDS = {
    "long": "long {} hair",
    "bob": "a {} bob",
    "bangs": "long {} hair with bangs",
    "bun": "{} hair in a bun",
    "curly": "curly {} hair",
    "ponytail": "a {} ponytail",
    "short": "short {} hair",
    "side": "side-parted {} hair",
    "spiky": "spiky {} hair",
    "buzz": "a {} buzz cut",
    "bald": "a bald head",
}


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, np.clip(saturation, 0, 1), np.clip(value, 0, 1))) * 255


@dataclass(frozen=True)
class Identity:
    """Lengths in half face widths; colours (3,) RGB floats 0..255; see `make_identity` for the ranges."""

    seed: int
    caption: str
    woman: bool
    # head
    skin: np.ndarray
    taper: float
    chin: float
    top: float
    square_jaw: float
    cheek: float
    depth: float
    blush: float
    ear: float
    nose_depth: float
    nose_width: float
    nose_y: float
    nose_bridge: float
    # eyes and brows
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris: np.ndarray
    iris_size: float
    lash: float
    brow: np.ndarray
    brow_thickness: float
    brow_y: float
    brow_arch: float
    # mouth
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lip: np.ndarray
    # hair and what is worn
    hair: np.ndarray
    style: str
    hairline: float
    parting: float
    hair_length: float
    beard: float
    moustache: bool
    glasses: int
    frame: np.ndarray
    earrings: bool
    shirt: np.ndarray
    collar: np.ndarray
    collar_kind: int
    shoulders: float
    # scene
    background: np.ndarray
    background_angle: float
    light: np.ndarray


def pick_skin(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A colour (3,) between those of SKINS, and how dark it is in [0, 1]."""
    tone = rng.random() * (len(SKINS) - 1)
    k = int(tone)
    return SKINS[k] * (1 - tone + k) + SKINS[k + 1] * (tone - k) + rng.uniform(-5, 5, 3), tone / (
        len(SKINS) - 1
    )


def paint(rng: np.random.Generator, name: str) -> np.ndarray:
    hue, saturation, value = PAINTS[name]
    spread = rng.uniform(-1, 1, 3) * (0.015, 0.06, 0.06)
    return hsv(hue + spread[0], saturation + spread[1], value + spread[2])


def make_identity(seed: int) -> Identity:
    """The person number `seed`: the same number always gives the same person."""
    rng = np.random.default_rng(seed)
    u = rng.uniform
    woman = bool(rng.random() < 0.5)
    skin, tone = pick_skin(rng)
    hair_name = str(rng.choice(list(HAIRS), p=HAIR_ODDS))
    hair = hsv(*(u(*bounds) for bounds in HAIRS[hair_name]))
    style = str(rng.choice(STYLES_WOMAN if woman else STYLES_MAN))
    background_name, shirt_name, collar_name = (str(n) for n in rng.choice(list(PAINTS), 3, replace=False))
    background = paint(rng, background_name)
    background = np.stack([background, background * u(0.72, 0.92)])
    brow = hair * u(0.5, 0.7)
    brow *= min(1.0, 0.45 * skin.mean() / brow.mean())  # always clearly darker than the skin
    rouge = np.array([205, 62, 80.0]) if woman and rng.random() < 0.6 else np.array([214, 108, 104.0])
    beard = float(u(0.75, 0.95)) if not woman and rng.random() < 0.35 else 0.0
    moustache = bool(not woman and rng.random() < 0.25)
    glasses = int(rng.integers(1, 4)) if rng.random() < 0.2 else 0
    # Long hair hides ears
    earrings = bool(woman and style in ("bun", "curly", "ponytail") and rng.random() < 0.7)
    light = np.array([u(-0.6, 0.6), u(0.25, 0.7), 1.0])
    eye_width = u(0.27, 0.32)
    upper_lip = u(0.078, 0.11) if woman else u(0.065, 0.09)

    worn = [STYLE_WORDS[style].format(hair_name)]
    worn += ["a beard"] * bool(beard) + ["a moustache"] * moustache + ["earrings"] * earrings
    worn += [GLASSES[glasses]] * bool(glasses)
    caption = (
        f"a toon {'woman' if woman else 'man'} with {', '.join(worn)}, "
        f"{background_name} background, {shirt_name} shirt"
    )
    return Identity(
        seed=seed,
        caption=caption,
        woman=woman,
        skin=skin,
        taper=u(0.16, 0.28) + (0.04 if woman else -0.02),
        chin=u(1.16, 1.30),
        top=u(1.18, 1.30),
        square_jaw=u(0, 0.35) * (0.3 if woman else 1),
        cheek=u(0, 0.07),
        depth=u(0.95, 1.05),
        blush=u(0.15, 0.45) * (1 if woman else 0.6),
        ear=u(0.2, 0.26),
        nose_depth=u(0.24, 0.36),
        nose_width=u(0.13, 0.19),
        nose_y=u(-0.46, -0.38),
        nose_bridge=u(0.2, 0.5),
        eye_x=u(0.41, 0.46),
        eye_y=u(-0.02, 0.05),
        eye_width=eye_width,
        eye_height=eye_width * u(0.52, 0.63),
        eye_tilt=u(-0.03, 0.05),
        iris=hsv(*IRISES[rng.integers(len(IRISES))]),
        iris_size=u(0.86, 1.0),
        lash=u(0.65, 1) if woman else u(0.2, 0.5),
        brow=brow,
        brow_thickness=u(0.038, 0.05) if woman else u(0.052, 0.068),
        brow_y=u(0.235, 0.265),
        brow_arch=u(0.02, 0.06),
        mouth_y=u(-0.79, -0.72),
        mouth_width=u(0.35, 0.42),
        upper_lip=upper_lip,
        lower_lip=upper_lip * u(1.1, 1.4),
        lip=(rouge * 0.65 + skin * (0.92, 0.6, 0.6) * 0.35) * (1 - 0.22 * tone),
        hair=hair,
        style=style,
        hairline=u(0.76, 0.86),
        parting=float(rng.choice([-1, 1]) * u(0.25, 0.55)),
        hair_length=u(0, 1),
        beard=beard,
        moustache=moustache,
        glasses=glasses,
        frame=hsv(u(0, 1), u(0, 0.7), u(0.1, 0.4)),
        earrings=earrings,
        shirt=paint(rng, shirt_name),
        collar=paint(rng, collar_name),
        collar_kind=int(rng.integers(3)),
        shoulders=u(1.3, 1.5) + (0 if woman else 0.3),
        background=background,
        background_angle=u(0, 2 * np.pi),
        light=light / np.linalg.norm(light),
    )

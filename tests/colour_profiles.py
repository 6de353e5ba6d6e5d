"""ICC profiles and HDR encodings as other programs write them, made from their published numbers."""

import struct

import numpy as np

from hellomeme.io.colour import SRGB_PROFILE

# Linear red, green and blue in XYZ under D50, and the exponent of the tone curve (None: that of sRGB)
SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)), None
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), None
ADOBE_RGB = (
    ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    2.19921875,
)
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8
BT2020_FROM_SRGB = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def profile(space):
    """The ICC profile of an RGB space, from that of sRGB."""
    colours, exponent = space
    data = bytearray(SRGB_PROFILE)
    for k in range(struct.unpack_from(">I", data, 128)[0]):
        tag, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * k)
        if tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
            data[offset + 8 : offset + 20] = fixed(*colours["rgb".index(chr(tag[0]))])
        if tag in (b"rTRC", b"gTRC", b"bTRC") and exponent:
            data[offset + 12 : offset + 32] = fixed(exponent, 1, 0, 0, 0)
    return bytes(data)


def cmyk_profile():
    """An ICC profile of inks of which the first is red, the second green, the third blue, the last black."""
    inks = {0: (53, 80, 67), 1: (46, -52, 50), 2: (32, 79, -108), 3: (0, 0, 0)}  # Lab
    table = bytearray()
    for k in range(16):
        printed = [inks[place] for place in range(4) if k >> (3 - place) & 1] or [(100, 0, 0)]
        lightness, a, b = printed[-1]
        table += bytes([round(lightness * 2.55), a + 128, b + 128])
    ramp = bytes(range(256))
    lut = (
        b"mft1"
        + bytes(4)
        + bytes([4, 3, 2, 0])
        + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
        + 4 * ramp
        + table
        + 3 * ramp
    )
    tags = {b"A2B0": lut, b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    place, index, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        index += struct.pack(">4sII", tag, place + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(index + body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + index + body


def linear(picture):
    """8-bit sRGB as linear light."""
    x = picture / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def encoded(picture, space):
    """8-bit sRGB in another RGB space, with 8 bits."""
    colours, exponent = space
    light = np.clip(linear(picture) @ np.array(SRGB[0]) @ np.linalg.inv(np.array(colours)), 0, 1)
    if exponent:
        light = light ** (1 / exponent)
    else:
        light = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * light).astype(np.uint8)


def in_pq(picture):
    """8-bit sRGB, its white at 203 cd/m2, in BT.2020 with the transfer function of ST 2084, as floats."""
    power = (linear(picture) @ BT2020_FROM_SRGB.T * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def in_hlg(picture):
    """The same in hybrid log-gamma, for the reference screen of 1000 cd/m2."""
    light = linear(picture) @ BT2020_FROM_SRGB.T * 203 / 1000
    brightness = np.maximum(light @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[..., None]
    scene = light / brightness ** (1 / 6)
    above = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), above)

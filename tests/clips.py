"""Clips as people have them, made with ffmpeg, and measurements of clips that were made."""

import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np

NTSC, NTSC_60 = Fraction(30000, 1001), Fraction(60000, 1001)
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
HEVC = [
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=none",
    "-tag:v",
    "hvc1",
    "-pix_fmt",
    "yuv420p",
]
VP9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuv420p"]


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def clip(path, rate=25, seconds=1, size="96x64", picture=(), before=(), sound=None, codec=H264):
    """A counting picture; `sound` lasts so many seconds, `picture` are options of it."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={float(seconds)}"]
    if sound:
        source += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={sound}"]
    ffmpeg(*before, *source, *picture, *codec, path)
    return path


KINDS = {  # name -> (file, options of `clip`, rate, (height, width), frames)
    "29.97": ("a.mp4", {"rate": "30000/1001", "sound": 1}, NTSC, (64, 96), 30),
    "59.94": ("a.mp4", {"rate": "60000/1001"}, NTSC_60, (64, 96), 60),
    "59.94 in milliseconds": ("a.mkv", {"rate": "60000/1001", "seconds": 2}, NTSC_60, (64, 96), 120),
    "portrait": ("a.mp4", {"size": "64x96"}, 25, (96, 64), 25),
    "odd sizes": ("a.webm", {"picture": ["-vf", "scale=97:65,setsar=1"], "codec": VP9}, 25, (65, 97), 25),
    "HEVC": ("a.mov", {"codec": HEVC}, 25, (64, 96), 25),
    "VP9": ("a.webm", {"rate": 30, "codec": VP9, "sound": 1}, 30, (64, 96), 30),
    "GIF": ("a.gif", {"rate": 10, "codec": []}, 10, (64, 96), 10),
    "sound longer": ("a.mp4", {"sound": 3}, 25, (64, 96), 25),
    "sound shorter": ("a.mp4", {"seconds": 2, "sound": 1}, 25, (64, 96), 50),
    "single frame": ("a.mp4", {"picture": ["-frames:v", 1]}, 25, (64, 96), 1),
    "wide pixels": ("a.mp4", {"picture": ["-vf", "setsar=2"]}, 25, (64, 192), 25),
}


def variable(path):
    """2 s at 30 a second, of which one frame in two and then two in three were left out where nothing
    moved."""
    drop = "select='if(lt(n,30),not(mod(n,2)),not(mod(n,3)))'"
    return clip(path, rate=30, seconds=2, picture=["-vf", drop, "-fps_mode", "vfr"], sound=2)


def turned(path, angle=90):
    """A landscape clip with a flag that says it is to be shown turned."""
    straight = clip(path.with_name("straight.mp4"))
    ffmpeg("-display_rotation:v:0", angle, "-i", straight, "-c", "copy", path)
    return path


def stamps(path, stream="v"):
    """(times in seconds, their lengths in seconds) of the packets of the picture ("v") or sound ("a"),
    exact."""
    lines = (
        ffmpeg("-i", path, "-map", f"0:{stream}:0", "-c", "copy", "-f", "framecrc", "-").decode().splitlines()
    )
    tick = Fraction(next(line for line in lines if line.startswith("#tb")).split(":")[1].strip())
    packets = sorted(tuple(map(int, line.split(",")[2:4])) for line in lines if not line.startswith("#"))
    return [pts * tick for pts, _ in packets], [length * tick for _, length in packets]


def has_sound(path):
    try:
        return bool(stamps(path, "a")[0])
    except subprocess.CalledProcessError:
        return False


def samples(path, rate=8000):
    """The sound as (N,) float32, from time 0 on."""
    raw = ffmpeg("-i", path, "-map", "0:a:0", "-ac", 1, "-ar", rate, "-f", "f32le", "-")
    return np.frombuffer(raw, np.float32)

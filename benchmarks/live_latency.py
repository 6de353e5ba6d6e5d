"""From the camera to the screen: how long a face takes, and how many pictures come a second.

Chromium films a clip instead of a camera, in which every frame carries its number as a row of black and white
squares. The server of this script paints the number of the camera's frame onto the picture that it draws of
it. In the browser a script reads both off the screen: when the camera's picture showed a number first, and
when the result did. The time between is the latency; what a real camera and the screen add is not in it. The
script looks only when something has changed: more often would cost the browser more than its own work. The
camera gives what the page asks for. Browser, server and this script share the machine.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import psutil

BITS = 12  # of the number of a frame
WIDTH, HEIGHT, RATE = 480, 360, 15  # what the page asks cameras for
# The number is followed by its inverse, so that squares that are misread are noticed.
WATCH = """([bits, share]) => {
    const canvas = new OffscreenCanvas(2 * bits, 1);
    const place = canvas.getContext("2d", {willReadFrequently: true});
    const read = (source, width) => {
        const side = share * width;
        place.drawImage(source, 0, side / 3, width, side / 3, 0, 0, 2 * bits, 1);
        const pixels = place.getImageData(0, 0, 2 * bits, 1).data;
        const values = Array.from({length: 2 * bits}, (_, k) => pixels[4 * k + 1] > 128);
        if (values.slice(0, bits).some((value, k) => value === values[bits + k])) return null;
        return values.slice(0, bits).reduce((number, value) => 2 * number + value, 0);
    };
    const video = document.querySelector("#live-camera video");
    window.seen = {camera: {}, result: {}, order: []};
    const film = () => {
        const number = read(video, video.videoWidth);
        if (number !== null) window.seen.camera[number] ??= performance.now();
        video.requestVideoFrameCallback(film);
    };
    video.requestVideoFrameCallback(film);
    let last = null;
    const look = async () => {
        const shown = document.querySelector("#live-result img");
        if (!shown?.src || shown.src === last) return;
        last = shown.src;
        await shown.decode().catch(() => {});  // a newer one has come
        requestAnimationFrame(() => {
            const number = shown.naturalWidth ? read(shown, shown.naturalWidth) : null;
            if (number === null) return;
            window.seen.result[number] ??= performance.now();
            window.seen.order.push(number);
        });
    };
    const changes = {subtree: true, childList: true, attributeFilter: ["src"]};
    new MutationObserver(look).observe(document.querySelector("#live-result"), changes);
}"""


def squares(number: int) -> np.ndarray:
    """(2 * BITS,) bool: the bits of a number and their inverse."""
    bits = np.array([number >> (BITS - 1 - k) & 1 for k in range(BITS)], bool)
    return np.concatenate([bits, ~bits])


def paint(frame: np.ndarray, number: int, side: float) -> np.ndarray:
    """A copy of a frame with its number at the top left, in squares of `side` px."""
    frame = frame.copy()
    for k, white in enumerate(squares(number)):
        frame[: int(side), round(k * side) : round((k + 1) * side)] = 255 * white
    return frame


def number_in(frame: np.ndarray, side: float) -> int | None:
    """The number in a frame (H, W, 3), which the browser has mirrored; None if it cannot be read."""
    row = frame[int(side / 2), :, 1][::-1]
    found = row[((np.arange(2 * BITS) + 0.5) * side).astype(int)] > 128
    return (
        None
        if (found[:BITS] == found[BITS:]).any()
        else int("".join("01"[int(bit)] for bit in found[:BITS]), 2)
    )


def film(clip: Path, path: Path, seconds: float) -> None:
    """Writes a face clip, numbered, for Chromium's camera: as Y4M, whose rate Chromium keeps to."""
    import cv2
    import imageio_ffmpeg

    from hellomeme.io.ffmpeg import probe, read_frames

    frames = list(read_frames(clip, probe(clip).rate))
    frames = [cv2.resize(frame, (HEIGHT, HEIGHT)) for frame in frames]
    frames = [*frames, *frames[::-1]]  # to and fro, without a jump
    left = (WIDTH - HEIGHT) // 2
    writer = imageio_ffmpeg.write_frames(
        str(path), (WIDTH, HEIGHT), fps=RATE, codec="rawvideo", pix_fmt_out="yuv420p", macro_block_size=1
    )
    writer.send(None)
    for number in range(int(seconds * RATE)):
        frame = np.full((HEIGHT, WIDTH, 3), 127, np.uint8)
        frame[:, left : left + HEIGHT] = frames[number % len(frames)]
        writer.send(paint(frame, number, WIDTH / 2 / BITS))
    writer.close()


def carry_numbers() -> None:
    """Makes the server paint the number of the camera's frame onto its picture."""
    from hellomeme.live import Live

    read, draw = Live.read, Live.draw

    numbers = {}  # id of a motion -> the number, and the motion, whose id then stays its own

    def read_number(self, frame, seconds):
        motion = read(self, frame, seconds)
        numbers[id(motion)] = number_in(frame, frame.shape[1] / 2 / BITS), motion
        return motion

    def draw_number(self, motion, *arguments):
        picture, (number, _) = draw(self, motion, *arguments), numbers[id(motion)]
        return picture if number is None else paint(picture, number, picture.shape[1] / 2 / BITS)

    Live.read, Live.draw = read_number, draw_number


def used_by_children() -> float:
    """CPU time of the processes that this one has started, s: of the browser."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(time.user + time.system for time in times)


def visit(url: str, camera: Path, seconds: float, chromium: str) -> dict:
    """What the browser saw in so many seconds, after the first picture was there for two."""
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream"]
    switches += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=switches)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.get_by_role("tab", name="Live", exact=True).click()
        page.locator("#live-camera").get_by_text("Open the camera").click()
        page.wait_for_function("document.querySelector('#live-camera video')?.videoWidth > 0")
        page.locator("#live-camera .button-wrap button").first.click()
        page.wait_for_selector("#live-result img")
        page.wait_for_timeout(2000)
        page.evaluate(WATCH, [BITS, 1 / 2 / BITS])
        before, others = time.process_time(), used_by_children()
        page.wait_for_timeout(1000 * seconds)
        seen = page.evaluate("window.seen") | {"cpu": time.process_time() - before}
        seen |= {"browser": used_by_children() - others}
        browser.close()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency and frames a second of the Live tab.")
    parser.add_argument("--release", default="demo", help='a release, a folder, or "tiny"')
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clip", type=Path, default=common.ROOT / "examples/clips/talk.mp4")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    import app
    from page import state

    print(common.machine())
    carry_numbers()
    state.STATE = state.State(common.model(options.release), device=None)
    page = app.build()
    launched = {"quiet": True, "server_name": "127.0.0.1", "prevent_thread_lock": True, "run_history": False}
    _, url, _ = page.launch(**launched, **app.LOOKS)
    app.warm_up()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        camera = Path(folder, "camera.y4m")
        film(options.clip, camera, min(options.seconds + 30, 2**BITS / RATE))
        seen = visit(url, camera, options.seconds, options.chromium)
    page.close()
    report(seen, load)


def report(seen: dict, load: float) -> None:
    shown = {int(number): time for number, time in seen["result"].items()}
    taken = {int(number): time for number, time in seen["camera"].items()}
    delays = np.array([shown[number] - taken[number] for number in shown if number in taken])
    times = np.sort(list(shown.values()))
    if len(delays) < 3:
        raise SystemExit(f"FAIL  only {len(delays)} pictures were recognised")
    rate = 1000 * (len(times) - 1) / (times[-1] - times[0])
    middle, late = np.percentile(delays, (50, 95))
    backwards = int((np.diff(seen["order"]) < 0).sum())
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")
    print(f"{len(delays)} pictures, of which {backwards} came out of order")
    print(
        f"{1000 * seen['cpu'] / len(shown):.0f} ms of CPU time of the server for each, "
        f"{1000 * seen['browser'] / len(shown):.0f} ms of the browser"
    )
    for good, line in (
        (rate >= 8, f"{rate:.1f} frames a second (target: 8)"),
        (middle < 500, f"latency {middle:.0f} ms in the median, {late:.0f} ms in 95 of 100 (target: 500)"),
    ):
        print(f"{'pass' if good else 'FAIL'}  {line}")
    raise SystemExit(0 if rate >= 8 and middle < 500 else 1)


if __name__ == "__main__":
    main()

"""Frames a second of the Live tab without a browser: `python benchmarks/live_rate.py`.

The script sends the frames of a clip over HTTP as the browser does, the next one when the last has been
answered and the time has passed that a browser needs for both. So the server has the machine for itself.
"""

import argparse
import base64
import io
import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import common
import httpx
import numpy as np
import psutil
from PIL import Image

WARM = 5  # frames that are not counted
SIZE = (480, 360)  # px, of a frame


def frames(clip: Path) -> Iterator[dict]:
    """The frames of a clip as the browser sends them, over and over."""
    from hellomeme.io.ffmpeg import probe, read_frames

    sent = []
    for frame in itertools.islice(read_frames(clip, probe(clip).rate), 48):
        file = io.BytesIO()
        Image.fromarray(frame).resize(SIZE).save(file, "jpeg", quality=90)
        sent.append({"url": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"})
    return itertools.cycle(sent)


class Camera:
    """A visitor's camera. `send` answers with what the server says to a frame."""

    def __init__(self, url: str, reference: Path):
        self.api, self.http = f"{url}gradio_api/", httpx.Client(timeout=60)
        page = self.http.get(f"{url}config").json()
        (event,) = (each for each in page["dependencies"] if each["connection"] == "stream")
        parts = {part["id"]: part["props"] for part in page["components"]}
        portrait = self.http.post(f"{self.api}upload", files={"files": reference.open("rb")}).json()[0]
        self.values = [parts[part].get("value") for part in event["inputs"]]
        for place, part in enumerate(event["inputs"]):
            if parts[part].get("elem_id") == "live-camera":
                self.place = place
            elif isinstance(self.values[place], dict):
                self.values[place] = {"path": portrait, "meta": {"_type": "gradio.FileData"}}
        self.about = {"fn_index": event["id"], "session_hash": "camera"}
        self.event, self.answers = None, queue.Queue()

    def send(self, frame: dict) -> dict:
        self.values[self.place] = frame
        body = {"data": self.values, **self.about}
        if self.event is None:
            self.event = self.http.post(f"{self.api}queue/join", json=body).json()["event_id"]
            threading.Thread(target=self._listen, daemon=True).start()
        else:
            self.http.post(f"{self.api}stream/{self.event}", json=body)
        answer = self.answers.get(timeout=60)
        if answer["msg"] != "process_streaming":
            raise SystemExit(f"FAIL  the stream has ended: {answer}")
        return answer["output"]

    def _listen(self) -> None:
        url = f"{self.api}queue/data?session_hash={self.about['session_hash']}"
        with self.http.stream("GET", url) as answers:
            for line in answers.iter_lines():
                answer = json.loads(line[5:]) if line.startswith("data:") else {}
                if answer.get("msg", "").startswith("process_") and answer["msg"] != "process_starts":
                    self.answers.put(answer)


def used() -> dict[str, float]:
    """Name of a thread -> its CPU time, s."""
    names, total = {thread.native_id: thread.name for thread in threading.enumerate()}, {}
    for thread in psutil.Process().threads():
        name = names.get(thread.id, "of libraries")
        total[name] = total.get(name, 0) + thread.user_time + thread.system_time
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="demo", help='a release, a folder, or "tiny"')
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--browser", type=float, default=60, help="ms that a browser takes for a frame")
    options = parser.parse_args()
    import app
    from page import state

    state.STATE = state.State(common.model(options.release), device=None)
    page = app.build()
    launched = {"quiet": True, "server_name": "127.0.0.1", "prevent_thread_lock": True, "run_history": False}
    _, url, _ = page.launch(**launched, **app.LOOKS)
    app.warm_up()
    camera = Camera(url, common.ROOT / "examples/references/mila.png")
    source = frames(common.ROOT / "examples/clips/talk.mp4")
    sent, answered, pictures = [], [], 0
    for number in range(WARM + options.frames):
        if number == WARM:
            before, began = used(), time.process_time()
        time.sleep(options.browser / 1000)
        sent.append(time.monotonic())
        picture = camera.send(next(source))["data"][0]
        answered.append(time.monotonic())
        pictures += number >= WARM and str(picture.get("url", "")).startswith("data:")
    cpu, after = time.process_time() - began, used()
    rate = options.frames / (answered[-1] - answered[WARM - 1])
    delays = 1000 * (np.array(answered[WARM + 1 :]) - sent[WARM:-1])  # a frame's picture comes with the next
    print(common.machine())
    print(f"load average {os.getloadavg()[0]:.1f}; a browser that takes {options.browser:g} ms a frame")
    print(f"{pictures} pictures for {options.frames} frames, {rate:.1f} a second")
    print(f"{np.median(delays):.0f} ms in the median from the sending of a frame to its picture")
    print(f"{1000 * cpu / options.frames:.0f} ms of CPU time a frame, of it (ms):")
    for name in sorted(after, key=lambda name: before.get(name, 0) - after[name])[:5]:
        print(f"  {1000 * (after[name] - before.get(name, 0)) / options.frames:6.1f} {name}")
    page.close()


if __name__ == "__main__":
    main()

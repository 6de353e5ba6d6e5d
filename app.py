"""The page: `python app.py`. Components and events only; `hellomeme` does the work.

Host and port: --host and --port, or Gradio's GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.
"""

from __future__ import annotations

try:
    import spaces  # on Hugging Face Spaces before anything that touches CUDA
except ImportError:
    spaces = None

import argparse
import contextlib
import dataclasses
import functools
import logging
import os
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the page asks nothing of the network

import gradio as gr

from hellomeme import releases
from hellomeme.errors import HelloMemeError
from hellomeme.settings import MAX_SEED, Settings

HERE = Path(__file__).parent
FIELDS = {field.name: field.metadata for field in dataclasses.fields(Settings)}
EXAMPLES = HERE / "examples"
QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}  # one picture at a time, in the order of asking
log = logging.getLogger("hellomeme.page")


class Studio:
    """The models loaded so far, and for each visitor who waits for a picture a flag that says stop.

    release, base, loras, device: what the page was started with. Base and LoRA files belong to that release only.
    """

    def __init__(self, release: str = "demo", base: str | None = None, loras: tuple[str, ...] = (), device: str | None = None):
        self.release, self.base, self.loras, self.device = release, base, tuple(loras), device
        self.reenactors, self.stops, self.turn = {}, {}, threading.Lock()

    @functools.cached_property
    def models(self) -> dict[str, tuple[str, str | None]]:
        """Name -> (title, why it cannot run here or None), as found when the page was started."""
        models = {name: (title, reason) for name, title, reason in releases.available()}
        if self.release not in models:
            models[self.release] = (f"{releases.find(self.release).name}: your model folder", None)
        return models

    def reenactor(self, release: str):
        """The reenactor of a release, loaded when it is first asked for."""
        from hellomeme.reenactor import Reenactor

        if release not in self.reenactors:
            own = {"base": self.base, "loras": self.loras} if release == self.release else {}
            self.reenactors[release] = Reenactor.from_release(release, device=self.device, **own)
        return self.reenactors[release]

    def warm_up(self) -> None:
        """Loads the first model ahead of the first visitor; what is wrong with it will be told to the visitor."""
        with self.turn, contextlib.suppress(HelloMemeError):
            self.reenactor(self.release)

    def stop(self, session: str | None) -> None:
        if session in self.stops:
            self.stops[session].set()


STUDIO = Studio()


@spaces.GPU if spaces else lambda function: function
def draw(release: str, reference: str, driver: str, settings: Settings, session: str | None):
    """One picture as `hellomeme.reenactor.Result`, or None when its visitor pressed Stop."""
    progress = gr.Progress()
    progress(0, desc="Loading the model")
    stop = STUDIO.stops[session] = threading.Event()
    from hellomeme.reenactor import Stopped

    def step_done(step: int, steps: int) -> None:
        progress((step, steps), desc="Drawing", unit="steps")
        if stop.is_set():
            raise Stopped

    try:
        with STUDIO.turn:
            reenactor = STUDIO.reenactor(release)
            progress(0, desc="Looking for the faces")
            reenactor.set_reference(reference, face=settings.reference_face)
            return reenactor.image(driver, settings, progress=step_done)
    except Stopped:
        return None
    finally:
        if STUDIO.stops.get(session) is stop:  # not that of a run started since
            del STUDIO.stops[session]


# Events


@contextlib.contextmanager
def told_to_the_visitor():
    """Bad input becomes its sentence; a fault of ours becomes one general sentence, its traceback goes to the log."""
    try:
        yield
    except HelloMemeError as error:
        raise gr.Error(str(error), duration=30, print_exception=False) from error
    except Exception as error:
        log.exception("while drawing")
        sentence = "Something broke on our side; the log of the server says what. Trying again may help."
        raise gr.Error(sentence, duration=30, print_exception=False) from error


def make_image(
    model, reference, driver, expression, head, guidance, steps, seed, reference_face, driver_face, prompt, negative_prompt,
    request: gr.Request = None,
):  # fmt: skip
    """Gives the reference picture the expression and head pose of the driver picture.

    Returns the picture, the two crops and the pose picture that it was made from, and a line about the settings.
    """
    with told_to_the_visitor():
        if not reference:
            raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")
        if not driver:
            raise HelloMemeError("There is no driver picture yet: upload a face, take a photo or pick one of the examples.")
        settings = Settings(
            expression=expression, head=head, guidance=guidance, steps=steps, seed=seed, reference_face=reference_face,
            driver_face=driver_face, prompt=prompt, negative_prompt=negative_prompt,
        )  # fmt: skip
        started = time.perf_counter()
        result = draw(model, reference, driver, settings, request and request.session_hash)
        if result is None:
            gr.Info("Stopped.", duration=3)
            return [gr.skip()] * 5
        used, seconds = result.settings, time.perf_counter() - started
        line = f"{seconds:.1f} s · {used.steps} steps · guidance {used.guidance:g} · seed {used.seed}"
        return result.picture, result.reference, result.driver, result.pose, line


def choose_model(model):
    """The defaults of a release, whether it reads a prompt, and a note where it cannot run here."""
    row, (_, reason) = releases.find(model), STUDIO.models[model]
    return row.guidance, row.steps, gr.update(visible=bool(row.prompt)), gr.update(**model_note(reason))


def stop(request: gr.Request):
    """Ends the visitor's own run at its next step."""
    STUDIO.stop(request.session_hash)


# Components


def picture_input(label: str, hint: str, name: str, examples: list[str]) -> gr.Image:
    """An image input that hands on the file as it came: `hellomeme.pictures` knows about rotation, depth and
    damage, and has a sentence for each, where Gradio would convert the picture or fail without a word."""
    picture = gr.Image(
        examples[0] if examples else None,
        label=label,
        placeholder=f"# {hint}\nDrop a file, paste, or click",
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        buttons=["fullscreen"],
        height=340,
        elem_id=name,
        alt_text=f"The {name} picture",
    )
    convert = picture.preprocess
    picture.preprocess = lambda file: file.path if file and not (file.url or "").startswith("data:") else convert(file)
    return picture


def slider(name: str, value: float, **options) -> gr.Slider:
    """A slider as `Settings` describes it."""
    facts = FIELDS[name]
    return gr.Slider(facts["min"], facts["max"], value, step=facts["step"], label=facts["label"], info=facts["help"], **options)


def number(name: str, **options) -> gr.Number:
    """A number as `Settings` describes it; 0 is the largest face, which is also what None stands for."""
    facts = FIELDS[name]
    return gr.Number(
        facts["default"] or 0, precision=0, minimum=facts["min"], maximum=facts["max"], label=facts["label"], info=facts["help"], **options
    )


def text(name: str) -> gr.Textbox:
    return gr.Textbox(FIELDS[name]["default"], label=FIELDS[name]["label"], info=FIELDS[name]["help"], max_lines=3)


def model_note(reason: str | None) -> dict:
    return {"value": f"**Cannot run here.** {reason}" if reason else "", "visible": bool(reason)}


def pictures_in(folder: str) -> list[str]:
    return sorted(str(path) for path in (EXAMPLES / folder).glob("*.png"))


def build() -> gr.Blocks:
    """The page, not yet launched."""
    models, row = STUDIO.models, releases.find(STUDIO.release)
    references, drivers = pictures_in("references"), pictures_in("drivers")

    with gr.Blocks(title="HelloMeme", delete_cache=(3600, 3600)) as page:
        gr.HTML((HERE / "docs" / "header.html").read_text(encoding="utf-8"), elem_id="header", padding=False)
        with gr.Row(equal_height=False, elem_id="studio"):
            with gr.Column(min_width=280):
                driver = picture_input("Driver · the face to follow", "Show a face", "driver", drivers)
                if drivers:
                    gr.Examples([[path] for path in drivers], driver, label="Faces to try", api_visibility="private")
            with gr.Column(min_width=280):
                reference = picture_input("Reference · what changes", "Choose a portrait", "reference", references)
                if references:
                    gr.Examples([[path] for path in references], reference, label="Portraits to try", api_visibility="private")
            with gr.Column(min_width=280):
                result = gr.Image(
                    label="Result", format="png", interactive=False, height=340, elem_id="result",
                    buttons=["download", "fullscreen"], alt_text="The reference with the driver's expression",
                )  # fmt: skip
                about = gr.Markdown(elem_id="about", show_label=False)
                with gr.Row(equal_height=True):
                    run = gr.Button("Bring it to life", variant="primary", size="lg", scale=3, min_width=120, elem_id="run")
                    halt = gr.Button("Stop", size="lg", scale=1, min_width=70, elem_id="stop")
                expression = slider("expression", FIELDS["expression"]["default"])
                head = slider("head", FIELDS["head"]["default"])
        with gr.Accordion("Model and more settings", open=False):
            model = gr.Dropdown(
                [(title if reason is None else f"{title} (not here)", name) for name, (title, reason) in models.items()],
                value=STUDIO.release, label="Model", elem_id="model",
            )  # fmt: skip
            note = gr.Markdown(**model_note(models[STUDIO.release][1]), elem_id="note")
            with gr.Column(visible=bool(row.prompt)) as words:
                prompt, negative_prompt = text("prompt"), text("negative_prompt")
            with gr.Row():
                guidance = slider("guidance", row.guidance)
                steps = slider("steps", row.steps)
            with gr.Row(equal_height=True):
                seed = number("seed", scale=4, elem_id="seed")
                dice = gr.Button("⚄ Roll the dice", scale=1, min_width=120, elem_id="dice")
            with gr.Row():
                reference_face, driver_face = number("reference_face"), number("driver_face")
        with gr.Accordion("What the model was shown", open=False):
            with gr.Row(elem_id="shown"):
                shown = {"interactive": False, "height": 240, "buttons": ["fullscreen"], "format": "png", "min_width": 160}
                driver_crop = gr.Image(label="Driver, aligned", alt_text="The crop of the driver", **shown)
                pose = gr.Image(label="Head pose", alt_text="The pose picture: a square fixed to the head", **shown)
                reference_crop = gr.Image(label="Reference, aligned", alt_text="The crop of the reference", **shown)

        inputs = [model, reference, driver, expression, head, guidance, steps, seed, reference_face, driver_face, prompt, negative_prompt]
        drawn = run.click(
            make_image, inputs, [result, reference_crop, driver_crop, pose, about],
            api_name="image", show_progress_on=result, **QUEUE,
        )  # fmt: skip
        halt.click(stop, cancels=drawn, queue=False, api_name="stop", show_progress="hidden")
        model.input(choose_model, model, [guidance, steps, words, note], api_name="model", show_progress="hidden", queue=False)
        dice.click(None, None, seed, js=f"() => Math.floor(Math.random() * {MAX_SEED + 1})", api_visibility="private")
    return page.queue(max_size=20)


THEME = gr.themes.Soft(
    primary_hue=gr.themes.colors.fuchsia,
    secondary_hue=gr.themes.colors.blue,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    # fonts that systems have: nothing is fetched
    font=["Avenir Next", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"],
    font_mono=["SF Mono", "Consolas", "DejaVu Sans Mono", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_border_width="1px",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_label_background_fill="*background_fill_primary",
    block_label_background_fill_dark="*background_fill_primary",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    block_title_background_fill="none",
    block_title_background_fill_dark="none",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    block_title_padding="0",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_700",
    slider_color="*primary_600",
)
LOOKS = {"theme": THEME, "css_paths": HERE / "docs" / "page.css", "favicon_path": HERE / "docs" / "favicon.png"}


def main(arguments: list[str] | None = None) -> None:
    global STUDIO
    parser = argparse.ArgumentParser(prog="app.py", description="Opens the HelloMeme page.")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, or 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: GRADIO_SERVER_PORT, or 7860)")
    parser.add_argument("--share", action="store_true", help="make a public link through Gradio's tunnel")
    parser.add_argument("--open", action="store_true", help="open the page in the browser, where there is a screen")
    parser.add_argument("--release", default="demo", help="model to start with: a release, or a folder in its layout")
    parser.add_argument("--base", help="base model for it: hub id, diffusers folder or .safetensors file")
    parser.add_argument("--lora", action="append", default=[], help="LoRA file for it; may be repeated")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    options = parser.parse_args(arguments)
    STUDIO = Studio(options.release, options.base, options.lora, options.device)
    try:
        page = build()
    except HelloMemeError as error:
        parser.exit(2, f"app.py: {error}\n")
    threading.Thread(target=STUDIO.warm_up, daemon=True).start()
    page.launch(
        server_name=options.host, server_port=options.port, share=options.share, inbrowser=options.open and has_screen(),
        run_history=False, footer_links=["api"], **LOOKS,
    )  # fmt: skip


def has_screen() -> bool:
    """Whether a browser window can open: never on a server, where a text browser would take over the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    main()

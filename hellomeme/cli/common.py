"""Options and steps that the commands share."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from ..errors import HelloMemeError
from ..io import metadata
from ..memory_choice import CHOICES
from ..releases.hub import check_exists
from ..releases.networks import CHOICES as EXPRESSION_TYPES
from ..releases.styles import BASES, LORAS, OFFICIAL, PREDICTIONS, Style
from ..settings import NO_UPSCALER, OFF, Settings
from ..threads import set_threads, threads_for
from .progress import download_bars

if TYPE_CHECKING:
    import torch

    from ..reenactor import Reenactor, Result

T = TypeVar("T")
DTYPES = ("float32", "bfloat16", "float16")
# Settings of a picture: all but `translation`, which only moves clips
FIELDS = tuple(field for field in dataclasses.fields(Settings) if field.name != "translation")


def add_model_options(command: argparse.ArgumentParser) -> None:
    """The options that choose the model and the device."""
    command.add_argument(
        "--release", default="demo", help="name of a release, or a folder in its layout (default: demo)"
    )
    add_style_options(command)
    add_expression_type(command)
    add_face_models(command)
    add_offline(command)
    add_upscaler(command)
    command.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    add_dtype(command)
    add_memory(command)
    add_compile(command)
    add_verbose(command)


def add_dtype(command: argparse.ArgumentParser) -> None:
    """The option that chooses the type of the weights."""
    command.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of the weights: 16 bits take half the memory, and less time where the device is fast in "
        "them (default: float16 on CUDA; bfloat16 on CPUs that have it; else float32)",
    )


def add_memory(command: argparse.ArgumentParser) -> None:
    """The option that chooses what is in the memory of the GPU."""
    command.add_argument(
        "--memory",
        choices=CHOICES,
        default="auto",
        help="what is in the memory of the GPU: all networks, only those at work (offload), or as little as "
        "can be (least: the halves of guidance and clips in small portions too) (default: auto, what fits)",
    )


def add_compile(command: argparse.ArgumentParser) -> None:
    """The option that lets torch compile the networks."""
    command.add_argument(
        "--compile",
        action="store_true",
        help="let torch compile the repeated blocks: the first picture takes a minute more, the others less; "
        "for GPUs, needs triton and a C++ compiler",
    )


def dtype_from(options: argparse.Namespace) -> torch.dtype | None:
    """What `--dtype` says, or None."""
    if options.dtype is None:
        return None
    import torch

    return getattr(torch, options.dtype)


def add_expression_type(command: argparse.ArgumentParser) -> None:
    """The option that chooses the control nets."""
    command.add_argument(
        "--expression-type",
        choices=tuple(EXPRESSION_TYPES),
        help="what carries the expression, where the release has control nets for it: emotion codes "
        "(pd_fpg), ARKit coefficients (drive_coeff), or both, which v1 and v2 add up "
        "(default: the release's)",
    )


def add_face_models(command: argparse.ArgumentParser) -> None:
    """The option that chooses what reads faces."""
    command.add_argument(
        "--face-models",
        default="mediapipe",
        metavar="MODELS",
        help="what reads faces: mediapipe, release (the ONNX models that v1 and later were trained with; "
        "needs pip install onnxruntime), or a folder with those (default: mediapipe)",
    )


def add_offline(command: argparse.ArgumentParser) -> None:
    """The option that keeps from downloading."""
    command.add_argument(
        "--offline", action="store_true", help="download nothing: use what is on this computer"
    )


def add_processes(command: argparse.ArgumentParser) -> None:
    """The option that shares the work among processes."""
    command.add_argument(
        "--processes",
        type=_count,
        default=1,
        metavar="INT",
        help="share the work among so many processes, each on a GPU of its own, as accelerate launch does, "
        "or on a part of the cores; the results are the same (default: 1)",
    )


def _count(text: str) -> int:
    """A number from 1 on; argparse makes a line of the error for other text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"choose 1 or more instead of {text}")
    return int(text)


def add_verbose(command: argparse.ArgumentParser) -> None:
    """The option that lets the libraries speak."""
    command.add_argument(
        "-v", "--verbose", action="store_true", help="let the libraries log to standard error"
    )


def add_style_options(command: argparse.ArgumentParser) -> None:
    """The options that choose what draws beside the release, see `style_from`."""
    command.add_argument(
        "--base",
        help="base model: a preset, hub id, diffusers folder or .safetensors file; presets: "
        f"{', '.join(BASES)}",
    )
    command.add_argument(
        "--vae", help="autoencoder: hub id, folder, .safetensors file, or official (default: the base's)"
    )
    command.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="LoRA for the base: a preset, file, hub id or hub id/file; may be repeated; presets: "
        f"{', '.join(LORAS)}",
    )
    command.add_argument(
        "--stylize",
        choices=("x1", "x2"),
        default="x2",
        help="x1: plain Stable Diffusion sees the reference; x2: the base does (default: x2)",
    )
    command.add_argument(
        "--prediction-type",
        choices=PREDICTIONS,
        help="what the base was trained to predict (default: what its configuration, metadata or marker keys "
        "say, or else epsilon)",
    )
    command.add_argument(
        "--embedding",
        action="append",
        default=[],
        metavar="FILE[:WORD]",
        help="embedding (textual inversion) for a word of the prompts, the file's own if none is given: a "
        "file, hub id or hub id/file; may be repeated",
    )
    command.add_argument(
        "--few-steps-lora",
        metavar="FILE",
        help="LoRA in place of the one that --few-steps downloads, or none if the base or a --lora has it",
    )


def add_upscaler(command: argparse.ArgumentParser) -> None:
    """The option that names the network for upscaling."""
    command.add_argument(
        "--upscaler", metavar="FILE", help="network for --upscale: .safetensors file, hub id or hub id/file"
    )


def style_from(options: argparse.Namespace) -> Style:
    """The style that the options choose; HelloMemeError for a bad strength."""
    reference_base = OFFICIAL if options.stylize == "x1" else None
    return Style(
        options.base,
        options.vae,
        tuple(options.lora),
        reference_base,
        options.prediction_type,
        tuple(options.embedding),
        options.few_steps_lora,
    )


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """The option that lets OUTPUT be replaced."""
    command.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def add_no_label(command: argparse.ArgumentParser) -> None:
    """The option that leaves out the label "AI-generated"."""
    command.add_argument(
        "--no-label", action="store_true", help=f'leave "{metadata.LABEL}" out of the metadata of the file'
    )


def add_original_size(command: argparse.ArgumentParser) -> None:
    """The option that pastes a picture back into the reference."""
    command.add_argument(
        "--original-size",
        action="store_true",
        help="write the whole reference picture, with the result pasted into it",
    )


def add_settings(command: argparse.ArgumentParser, fields: Iterable[dataclasses.Field] = FIELDS) -> None:
    """One option for each of these fields of a settings dataclass."""
    for field in fields:
        command.add_argument(f"--{field.name.replace('_', '-')}", **_argument(field))


def settings_from(
    options: argparse.Namespace, kind: type[T] = Settings, fields: Iterable[dataclasses.Field] = FIELDS
) -> T:
    """The settings dataclass `kind` with the options for these fields; HelloMemeError for a bad value, and
    for upscaling without an upscaler."""
    settings = kind(**{field.name: getattr(options, field.name) for field in fields})
    if getattr(settings, "upscale", OFF) != OFF and options.upscaler is None:
        raise HelloMemeError(NO_UPSCALER)
    return settings


def _argument(field: dataclasses.Field) -> dict:
    """argparse's arguments for the option of a setting; its range is checked by the settings themselves."""
    facts = field.metadata
    text = facts["help"].replace("%", "%%")
    if facts["kind"] is bool:
        return {"action": argparse.BooleanOptionalAction, "default": field.default, "help": text}
    if "choices" in facts:
        text = f"{text} (default {field.default})"
        return {"choices": facts["choices"], "default": field.default, "help": text}
    if facts["kind"] is not str:
        default = "" if field.default is None else f", default {field.default:g}"
        most = facts["max"] if facts["kind"] is int else format(facts["max"], "g")
        text = f"{text} ({facts['min']:g} to {most}{default})"
    return {
        "type": facts["kind"],
        "default": field.default,
        "metavar": facts["kind"].__name__.upper(),
        "help": text,
    }


def load(options: argparse.Namespace, standard_error: TextIO, device: str | None = None) -> Reenactor:
    """The reenactor that the model options choose. device: this process's own, in place of none or cuda."""
    from ..face.onnx_models import face_analyzer
    from ..reenactor import Reenactor

    style = style_from(options)
    if options.upscaler is not None:
        check_exists(options.upscaler)  # before a model is loaded
    progress = download_bars(standard_error)
    reenactor = Reenactor.from_release(
        options.release,
        base=style.base,
        device=device if device and options.device in (None, "cuda") else options.device,
        dtype=dtype_from(options),
        memory=options.memory,
        compiled=options.compile,
        expression_type=options.expression_type,
        loras=style.loras,
        vae=style.vae,
        reference_base=style.reference_base,
        prediction_type=style.prediction_type,
        embeddings=style.embeddings,
        few_steps_lora=style.few_steps_lora,
        progress=progress,
        analyzer=face_analyzer(options.face_models, progress),
    )
    set_threads(threads_for(reenactor.pipeline))
    if options.upscaler is not None:
        from ..upscale import Upscaler

        place = reenactor.pipeline.running_device
        reenactor.upscaler = Upscaler.load(options.upscaler, place, progress)
    return reenactor


def write(result: Result, output: Path, options: argparse.Namespace, made_from: str | None = None) -> None:
    """Writes a picture with its settings in the metadata, as the result options choose.

    made_from: for pictures of a batch, see `jobs.made_from`. Raises HelloMemeError if writing fails.
    """
    picture = result.original_size() if options.original_size else result.picture
    stamp = dataclasses.replace(result.stamp, labelled=not options.no_label, made_from=made_from)
    metadata.save(picture, output, stamp, getattr(options, "overwrite", False))

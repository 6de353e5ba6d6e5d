"""Train the demo model, stage by stage, from data to export; or the adapters of a release on clips of your
own.

Each stage reads what the stages before it left in the work folder, resumes where it stopped, and may be run
on several processes with `accelerate launch -m training.run ...`; with --one-gpu it does neither.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from hellomeme.errors import HelloMemeError
from training.evaluation.curves import curves
from training.export import take_apart
from training.loop import Schedule, Stage, train
from training.one_gpu import refuse_to_replace, train_on_one_gpu
from training.stages import own_clips
from training.stages.together import hand_over
from training.workshop import Workshop

CONFIGS = Path(__file__).parent / "configs"
STAGES = {
    "import": "begin from an exported model instead of from nothing",
    "data": "render and label the frames",
    "autoencoder": "pictures to latents and back",
    "base": "the text-to-image model",
    "reader": "what latents show, as a loss of the stages below (optional)",
    "together": "the base learns on beside the adapters (optional)",
    "adapters": "the method itself, base frozen",
    "decoder": "the autoencoder's decoder, further, on what the adapters draw (optional)",
    "clips": "render and label clips",
    "motion": "the motion module on clips, base and adapters frozen",
    "export": "write the model",
    "own": "instead of all that, the adapters of a release on a folder of your own clips",
    "plot": "draw the curves of all logs",
}


def main(argv: list[str] | None = None) -> None:
    stages = "\n".join(f"  {name:<13}{what}" for name, what in STAGES.items())
    parser = argparse.ArgumentParser(
        prog="python -m training.run",
        description=__doc__.splitlines()[0],
        epilog=f"stages, in their order:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=STAGES, metavar="STAGE", help="one of those below")
    parser.add_argument("--config", type=Path, help="training/configs/demo.json, or own_clips.json for `own`")
    parser.add_argument(
        "--folder", type=Path, required=True, help="work folder for data, checkpoints and logs"
    )
    parser.add_argument(
        "--minutes", type=float, help="train this long in all, instead of what the configuration says"
    )
    parser.add_argument(
        "--processes", type=int, help="that render (data, clips: 2) or draw batches (--one-gpu: 12)"
    )
    parser.add_argument(
        "--model", type=Path, default=Path("assets/demo"), help="the exported model (import, export)"
    )
    parser.add_argument(
        "--one-gpu", action="store_true", help="captured steps in bfloat16, without resuming (together)"
    )
    own = parser.add_argument_group("own")
    own.add_argument("--clips", type=Path, help="folder of clips, one face in each")
    own.add_argument(
        "--release", default="v1", help="release or folder whose adapters are trained further (v1)"
    )
    own.add_argument("--fresh", action="store_true", help="start with random adapters of the release's kind")
    own.add_argument("--base", help="base model: hub id, diffusers folder or single .safetensors file")
    args = parser.parse_args(argv)
    if args.stage == "own" and args.clips is None:
        parser.error("own needs --clips FOLDER")
    if args.one_gpu and args.stage != "together":
        parser.error(f"--one-gpu is for the stage together, not for {args.stage}")
    path = args.config or CONFIGS / ("own_clips.json" if args.stage == "own" else "demo.json")
    config = json.loads(path.read_text())
    if hasattr(Workshop, f"{args.stage}_stage") and args.stage not in config:
        parser.error(f"{path.name} has no stage {args.stage}: leave it out, or say there how long it takes")
    torch.manual_seed(config["seed"])
    np.random.seed(config["seed"])
    try:
        run(args, config)
    except HelloMemeError as error:
        parser.exit(2, f"training: {error}\n")


def run(args: argparse.Namespace, config: dict) -> None:
    """One stage, as the command line asks for it."""
    if args.stage == "plot":
        picture = args.folder / "curves.jpg"
        curves(args.folder, picture)
        print(f"The curves are in {picture}.")
        return
    shop = Workshop(args.folder, config)
    if args.stage in ("data", "clips"):
        shop.render(args.stage, args.processes or 2)
        return
    if args.stage == "import":
        take_apart(args.model, args.folder)
        return
    if args.stage == "export":
        shop.export(args.model)
        return
    schedule = Schedule(**config[args.stage] | ({"minutes": args.minutes} if args.minutes else {}))
    # `train` makes another, which must have the same precision
    accelerator = Accelerator(mixed_precision=config["mixed_precision"])
    if args.one_gpu and (accelerator.device.type != "cuda" or accelerator.num_processes > 1):
        raise HelloMemeError("--one-gpu needs a GPU of NVIDIA's, and one process: leave it out here.")
    if args.one_gpu:
        refuse_to_replace(args.folder / args.stage)
    with accelerator.main_process_first():  # it makes the latents and the tokenizer; the others read them
        if args.stage == "own":
            start = own_clips.Start(args.release, args.base, args.fresh)
            stage: Stage = own_clips.prepare(args.clips, start, args.folder, config, accelerator.device)
        else:
            stage = getattr(shop, f"{args.stage}_stage")()
    if args.stage == "autoencoder" and not (args.folder / "autoencoder" / "averaged.safetensors").exists():
        stage.start()
    if args.one_gpu:
        train_on_one_gpu(stage, schedule, args.folder / args.stage, config["seed"], args.processes or 12)
    else:
        train(stage, schedule, args.folder / args.stage, config["seed"], config["mixed_precision"])
    if accelerator.is_main_process:
        if args.stage == "together":
            hand_over(args.folder)
        if args.stage == "own":
            result = args.folder / "release"
            own_clips.export(stage, result)
            print(f"The adapters are in {result}: try them with app.py --release {result}.")


if __name__ == "__main__":
    main()

"""`python -m hellomeme evaluate CLIPS_FOLDER`: the paper's figures, measured on clips.

Over several GPUs with `--processes 4`, or `accelerate launch --num_processes 4 -m hellomeme evaluate
CLIPS_FOLDER`. Exit status 0: all clips count. 1: some clips were left out; they are listed at the end. 2:
nothing could be measured.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import HelloMemeError
from ..settings import ClipSettings, Settings
from ..threads import set_threads, usable_cores
from . import common
from .processes import gathered, own_gpu, place
from .progress import frame_counter

if TYPE_CHECKING:
    from ..evaluation.clips import Task
    from ..releases.table import Release

NAMES = (
    "guidance",
    "steps",
    "seed",
    "prompt",
    "negative_prompt",
    "few_steps",
    "smoothing",
    "motion",
    "overlap",
    "fast",
)
PICTURE_FIELDS, CLIP_FIELDS = (
    [field for field in dataclasses.fields(kind) if field.name in NAMES] for kind in (Settings, ClipSettings)
)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "evaluate",
        help="measure the paper's figures on a folder of clips",
        description="Draws every clip of a folder from its own first frame (or, with --cross, from the first "
        "frame of the next clip), and measures FID, FVD, PSNR, SSIM and LPIPS (with --cross, FID, AED, APD "
        "and identity) of it, and of the reference copied and warped. What is drawn already is kept.",
    )
    command.set_defaults(command=evaluate)
    command.add_argument("clips", metavar="CLIPS_FOLDER", help="folder with clips of one face each")
    command.add_argument(
        "--cross", action="store_true", help="the reference is the first frame of the next clip"
    )
    command.add_argument(
        "--output",
        default="evaluation",
        metavar="FOLDER",
        help="where pictures and figures are kept (default: evaluation)",
    )
    command.add_argument(
        "--frames", type=int, default=0, metavar="INT", help="how many of each clip (0, the default: all)"
    )
    common.add_model_options(command)
    common.add_processes(command)
    common.add_settings(command, (*PICTURE_FIELDS, *CLIP_FIELDS))


def evaluate(options: argparse.Namespace, standard_error: TextIO) -> int:
    """Draws what is missing, measures, writes and prints the figures, and returns the exit status."""
    rank, processes = place()
    drawing, problems, failure, status = None, {}, None, 0
    try:
        drawing = _Drawing.of(options, standard_error)
        problems = drawing.draw(drawing.tasks[rank::processes])
    except HelloMemeError as error:
        failure = str(error)
    except KeyboardInterrupt:
        print("hellomeme: interrupted; start again to go on.", file=standard_error)
        return 130
    with gathered((problems, failure), processes) as outcomes:
        failure = next((failed for _, failed in outcomes if failed), None)
        if rank == 0 and failure is None:  # the others wait until it has measured
            try:
                status = drawing.report({name: why for found, _ in outcomes for name, why in found.items()})
            except HelloMemeError as error:
                failure = str(error)
    if failure is not None and rank == 0:
        raise HelloMemeError(failure)
    return status if failure is None else 2


@dataclasses.dataclass
class _Drawing:
    """Tasks drawn into a folder with one release and settings, and the figures of them."""

    options: argparse.Namespace
    settings: Settings
    clip: ClipSettings
    release: Release
    tasks: list[Task]
    folder: Path
    standard_error: TextIO

    @classmethod
    def of(cls, options: argparse.Namespace, standard_error: TextIO) -> _Drawing:
        """What the options ask for; HelloMemeError where that cannot be."""
        from ..evaluation.clips import settings_for, tasks
        from ..releases.load import find

        settings = common.settings_from(options, Settings, PICTURE_FIELDS)
        clip = common.settings_from(options, ClipSettings, CLIP_FIELDS)
        # With a start, frames follow each other instead of being spread over the clip
        clip = dataclasses.replace(clip, frames=options.frames, start=0.0 if options.frames else None)
        release, cross = find(options.release), options.cross
        settings = settings_for(settings.resolved(release), cross)
        folder = Path(options.output) / f"{release.name}-{'cross' if cross else 'self'}"
        chosen = tasks(options.clips, cross)
        return cls(options, settings, clip, release, chosen, folder, standard_error)

    def frames(self, task: Task) -> tuple[int, str]:
        """How many frames of the task are kept, and the digest of what they are made from."""
        from ..evaluation.clips import frames_of, made_from

        chosen = (self.options.expression_type, self.options.face_models)
        chosen += () if self.options.dtype is None else (self.options.dtype,)
        options = (self.settings, self.clip, common.style_from(self.options), *chosen)
        digest = made_from(task, self.release, options)
        return frames_of(self.folder / task.clip.name, digest), digest

    def draw(self, tasks: list[Task]) -> dict[str, str]:
        """Draws the tasks that are not finished; clip -> what is wrong with it.

        Raises HelloMemeError if the model cannot be loaded.
        """
        from ..evaluation.clips import make
        from ..face.detect import FaceAnalyzer

        problems, missing = {}, []
        for task in tasks:
            try:
                frames, digest = self.frames(task)
                missing += [] if frames else [(task, digest)]
            except HelloMemeError as error:
                problems[task.clip.name] = str(error)
        reenactor = common.load(self.options, self.standard_error, own_gpu()) if missing else None
        with FaceAnalyzer() as reader:
            for number, (task, digest) in enumerate(missing, 1):
                name, counter = task.clip.name, frame_counter(self.standard_error) or (lambda *_: None)
                own = reenactor, self.settings, self.clip, reader, counter
                try:
                    make(task, self.folder / name, digest, *own)
                    self.tell(f"{name} is drawn, {number} of {len(missing)}")
                except HelloMemeError as error:
                    problems[name] = str(error)
        return problems

    def report(self, problems: dict[str, str]) -> int:
        """Measures what is finished, writes and prints the figures, and returns the exit status.

        Raises HelloMemeError if nothing is.
        """
        from ..evaluation.figures import Figures, Kept, measure
        from ..face.detect import FaceAnalyzer
        from ..releases.load import choose_device

        kept = []
        for task in self.tasks:
            name = task.clip.name
            if name not in problems:
                frames, _ = self.frames(task)
                kept += [Kept(name, self.folder / name, frames)] if frames else []
                problems |= {} if frames else {name: "it is not drawn yet: start again."}
        if not kept:
            name, why = next(iter(problems.items()))
            raise HelloMemeError(f"None of the clips can be measured; {name}: {why}")
        counter = frame_counter(self.standard_error) or (lambda *_: None)
        device = choose_device(self.options.device)
        set_threads(usable_cores())  # the networks that measure are large ones
        with FaceAnalyzer() as analyzer:
            measured = measure(kept, self.options.cross, self.release.name, analyzer, device, counter)
        clips, frames = [each.name for each in kept], sum(each.frames for each in kept)
        facts = dataclasses.asdict(self.settings) | dataclasses.asdict(self.clip)
        facts |= {"style": common.style_from(self.options).facts}
        facts |= {name: getattr(self.options, name) for name in ("expression_type", "face_models")}
        figures = Figures(
            self.release.name,
            self.options.cross,
            clips,
            frames,
            facts,
            *measured,
            dict(sorted(problems.items())),
        )
        figures.save(self.folder / "figures.json")
        print(figures.table())
        print(f"Pictures and figures are in {self.folder}.")
        return 1 if problems else 0

    def tell(self, sentence: str) -> None:
        """Prints a line about the work to standard error."""
        print(f"hellomeme: {sentence}.", file=self.standard_error, flush=True)

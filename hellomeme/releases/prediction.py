"""What a base model was trained to predict, which every sampler has to know.

Stable Diffusion 1.5 predicts the noise, epsilon. Some models made from it predict the velocity
v = alpha * noise - sigma * picture (arXiv 2202.00512), and of these some with a schedule that ends in noise
alone, a signal-to-noise ratio of zero (arXiv 2305.08891).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import HelloMemeError
from .tensors import metadata_of
from .weights import reason

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

    from .single_file import SingleFile

# In the configuration that is kept beside a file, as in the first code of Stable Diffusion
PARAMETRIZATION = re.compile(r"^\s*parameterization:\s*[\"']?v\b", re.MULTILINE)


@dataclass(frozen=True)
class Prediction:
    """kind: "epsilon" or "v_prediction". zero_snr: whether the schedule ends in noise alone."""

    kind: str = "epsilon"
    zero_snr: bool = False

    @classmethod
    def of_config(cls, config: Mapping[str, Any], source: str) -> Prediction:
        """From the configuration of a base model's scheduler. HelloMemeError for what is not sampled here."""
        kind = config.get("prediction_type") or "epsilon"
        if kind not in ("epsilon", "v_prediction"):
            raise HelloMemeError(
                f"{source} predicts {str(kind)[:40]}, which is not sampled here: choose a model that "
                "predicts epsilon or v."
            )
        return cls(kind, config.get("rescale_betas_zero_snr") is True)

    @classmethod
    def of_file(cls, file: SingleFile) -> Prediction | None:
        """What a base model in one file says of itself; None if it says nothing.

        It may hold empty tensors called v_pred and ztsnr, name its type in its metadata, or lie beside a
        configuration of the same name.
        """
        zero_snr = "ztsnr" in file.facts
        if zero_snr or "v_pred" in file.facts:
            return cls("v_prediction", zero_snr)
        named = metadata_of(file.path).get("modelspec.prediction_type")
        config = file.path.with_suffix(".yaml")
        is_v = config.is_file() and PARAMETRIZATION.search(config.read_text("utf-8", errors="replace"))
        if is_v or named in ("v", "v_prediction"):
            return cls("v_prediction")
        return cls() if named == "epsilon" else None

    def scheduler(self, scheduler: SchedulerMixin) -> SchedulerMixin:
        """The scheduler for this prediction: itself, or one of its kind with the same other settings.

        Raises HelloMemeError for a kind that cannot sample it.
        """
        kind = type(scheduler)
        settings = {"prediction_type": self.kind, "rescale_betas_zero_snr": self.zero_snr}
        defaults = inspect.signature(kind).parameters
        now = {name: scheduler.config.get(name) for name in settings if name in defaults}
        if lacking := [name for name in settings if name not in defaults and (settings[name] is not False)]:
            if self == Prediction():
                return scheduler
            raise HelloMemeError(
                f"{kind.__name__} cannot sample what this base model predicts (it has no {lacking[0]}): "
                "choose another scheduler or base model."
            )
        settings = {name: settings[name] for name in now}
        if now == settings:
            return scheduler
        try:
            return kind.from_config(scheduler.config, **settings)
        except Exception as error:  # what settings from a file ask for can go wrong in any way
            raise HelloMemeError(f"The scheduler {kind.__name__} cannot be made: {reason(error)}") from error


CHOICES = {
    "epsilon": Prediction(),
    "v_prediction": Prediction("v_prediction"),
    "v_prediction_zero_snr": Prediction("v_prediction", zero_snr=True),
}

"""HMReferenceAdapter: the Spatial Knitting Attentions that stand at the places of the UNet (Figure 1).

The places are numbered as in `unet`. Shapes: `B` batch, `T` frames, `C h w` a map.
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .attention import KeysValues, SKReferenceAttention


class HMReferenceAdapter(ModelMixin, ConfigMixin):
    """The reference attentions of releases v1 and v2, one per place (names as in the released files).

    v1 fills the down blocks with cross attention, mid, and the up blocks with cross attention; v2 the latter
    only. A config without `version` is v1's. v1 also holds a module for `down_3`, which the method never
    uses.
    knitted: False for plain attention, as in the paper's ablations; no release has it.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        num_attention_heads: int = 8,
        version: str = "v1",
        knitted: bool = True,
    ):
        super().__init__()
        widths = list(block_out_channels)
        up_widths = [widths[-1], *widths[:0:-1]]  # what enters each up block
        crossing = [i for i, kind in enumerate(up_block_types) if kind.startswith("CrossAttn")]

        def knit(width: int) -> SKReferenceAttention:
            return SKReferenceAttention(width, num_attention_heads, knitted)

        self.reference_modules_up = nn.ModuleList(knit(up_widths[i]) for i in crossing)
        self._at = {f"up_{i}": module for i, module in zip(crossing, self.reference_modules_up, strict=True)}
        if version == "v1":
            self.reference_modules_down = nn.ModuleList(map(knit, widths))
            self.reference_modules_mid = knit(widths[-1])
            self._at["mid"] = self.reference_modules_mid
            for i, (kind, module) in enumerate(
                zip(down_block_types, self.reference_modules_down, strict=False)
            ):
                if kind.startswith("CrossAttn"):
                    self._at[f"down_{i}"] = module

    def module_at(self, place: str) -> SKReferenceAttention | None:
        """The reference attention of a place, or None where this release has none."""
        return self._at.get(place)

    def prepare(self, features: dict[str, Tensor]) -> dict[str, KeysValues]:
        """Feature maps of `HMReferenceNet`, place -> (B, C, h, w), to what `HMDenoisingNet` takes as
        `reference`.

        Done once per reference; places where the adapter holds no module are left out. Differentiable.
        """
        return {place: self._at[place].prepare(x) for place, x in features.items() if place in self._at}

    def forward(self, place: str, hidden: Tensor, reference: KeysValues) -> Tensor:
        """Knits the hidden map (B*T, C, h, w) at a place together with the prepared reference of that
        place."""
        return self._at[place](hidden, reference)

"""HMReferenceAdapter: the Spatial Knitting Attentions inserted into the UNet (Figure 1).

The places are numbered as in `unet`. Shapes: `B` batch, `T` frames, `C h w` a map.
"""

from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .attention import KeysValues, SKReferenceAttention
from .config import AdapterConfig


class HMReferenceAdapter(ModelMixin, AdapterConfig):
    """The reference attentions of releases v1 and v2, one per place, named as in the released files.

    v1 has them after the down blocks with cross attention, after the mid block, and before the up blocks
    with cross attention; v2 only before those up blocks. A config without `version` is v1's. v1 also holds a
    module for `down_3`, which the method never uses.
    """

    attention_class: type[SKReferenceAttention] = SKReferenceAttention

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        num_attention_heads: int = 8,
        version: str = "v1",
    ):
        super().__init__()
        widths = list(block_out_channels)
        up_widths = [widths[-1], *widths[:0:-1]]  # what enters each up block
        down = [i for i, kind in enumerate(down_block_types) if kind.startswith("CrossAttn")]
        up = [i for i, kind in enumerate(up_block_types) if kind.startswith("CrossAttn")]

        def attention(width: int) -> SKReferenceAttention:
            return self.attention_class(width, num_attention_heads)

        self.reference_modules_up = nn.ModuleList(attention(up_widths[i]) for i in up)
        self._at = {f"up_{i}": module for i, module in zip(up, self.reference_modules_up, strict=True)}
        if version == "v1":
            self.reference_modules_down = nn.ModuleList(map(attention, widths))
            self.reference_modules_mid = attention(widths[-1])
            self._at |= {f"down_{i}": self.reference_modules_down[i] for i in down}
            self._at["mid"] = self.reference_modules_mid

    @property
    def unet_widths(self) -> list[int]:
        """The widths of the UNet's blocks that the adapter is made for."""
        return list(self.config.block_out_channels)

    def module_at(self, place: str) -> SKReferenceAttention | None:
        """The reference attention of a place, or None where this release has none."""
        return self._at.get(place)

    def prepare(self, features: dict[str, Tensor]) -> dict[str, KeysValues]:
        """The feature maps of `HMReferenceNet`, place -> (B, C, h, w), to keys and values by place.

        Done once per reference; places without a reference attention are left out. Differentiable.
        """
        return {place: self._at[place].prepare(x) for place, x in features.items() if place in self._at}

    def forward(self, place: str, hidden: Tensor, reference: KeysValues) -> Tensor:
        """The hidden map (B*T, C, h, w) at a place, and the prepared reference there -> (B*T, C, h, w)."""
        return self._at[place](hidden, reference)

"""The reference adapters: Spatial Knitting Attentions inserted into the UNet (Figure 1).

The places are numbered as in `unet`. Shapes: `B` batch, `T` frames, `C h w` a map.
"""

from collections.abc import Callable, Mapping, Sequence

from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .attention import KeysValues, SKReferenceAttention
from .config import AdapterConfig, TimeWidthFromWeights
from .stk_attention import SKReferenceAttentionV5, STKReferenceModule


class ReferenceAdapter(ModelMixin, AdapterConfig):
    """Reference attentions by place. A subclass makes them, under the names of the released files."""

    def __init__(self):
        super().__init__()
        self._at: dict[str, nn.Module] = {}

    @property
    def unet_widths(self) -> list[int]:
        """The widths of the UNet's blocks that the adapter is made for."""
        raise NotImplementedError

    def fits(self, unet_widths: Sequence[int]) -> bool:
        """Whether a UNet with blocks of these widths has maps of the right width at all places."""
        return list(unet_widths) == self.unet_widths

    def attentions(self) -> list[nn.Module]:
        """The reference attentions of all places."""
        return list(self._at.values())

    def module_at(self, place: str) -> nn.Module | None:
        """The reference attention of a place, or None where this release has none."""
        return self._at.get(place)

    def prepare(self, features: Mapping[str, Tensor]) -> dict[str, KeysValues]:
        """The feature maps of `HMReferenceNet`, place -> (B, C, h, w), to keys and values by place.

        Done once per reference; places without a reference attention are left out. Differentiable.
        """
        return {place: self._at[place].prepare(x) for place, x in features.items() if place in self._at}

    def forward(self, place: str, hidden: Tensor, reference: KeysValues) -> Tensor:
        """The hidden map (B*T, C, h, w) at a place, and the prepared reference there -> (B*T, C, h, w)."""
        return self._at[place](hidden, reference)


class HMReferenceAdapter(ReferenceAdapter):
    """The reference attentions of releases v1 and v2.

    v1 has them after the down blocks with cross attention, after the mid block, and before the up blocks
    with cross attention; v2 only before those up blocks. A config without `version` is v1's. v1 also holds a
    module for `down_3`, which the method never uses.
    """

    attention_class: type[nn.Module] = SKReferenceAttention

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

        def attention(width: int) -> nn.Module:
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
        return list(self.config.block_out_channels)


class UpReferenceAdapter(ReferenceAdapter):
    """One reference attention before each up block, as all releases from v3 on have."""

    def _add(self, make: Callable[[int], nn.Module]) -> None:
        """make: width of what enters an up block -> its reference attention."""
        self.reference_modules_up = nn.ModuleList(map(make, self.config.block_up_channels))
        self._at = {f"up_{i}": module for i, module in enumerate(self.reference_modules_up)}

    @property
    def unet_widths(self) -> list[int]:
        return [self.config.block_down_channels[0], *self.config.block_up_channels[:0:-1]]

    def fits(self, unet_widths: Sequence[int]) -> bool:
        """Whether what enters the UNet's up blocks has the right widths; the first block's width is free."""
        return [*unet_widths[-1:], *unet_widths[:0:-1]] == list(self.config.block_up_channels)


class HM3ReferenceAdapter(UpReferenceAdapter):
    """Releases v3 and v4, with the attention of v1 and v2.

    block_up_channels: the widths of what enters the up blocks. block_down_channels and use_3d have no effect.
    """

    @register_to_config
    def __init__(
        self,
        block_down_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        block_up_channels: tuple[int, ...] = (1280, 1280, 1280, 640),
        num_attention_heads: int = 8,
        use_3d: bool = False,
    ):
        super().__init__()
        self._add(lambda width: SKReferenceAttention(width, num_attention_heads))


class HM5ReferenceAdapter(TimeWidthFromWeights, UpReferenceAdapter):
    """Release v5. The arguments are those of `HM3ReferenceAdapter`; time_width: of the time embedding."""

    @register_to_config
    def __init__(
        self,
        block_down_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        block_up_channels: tuple[int, ...] = (1280, 1280, 1280, 640),
        num_attention_heads: int = 8,
        use_3d: bool = False,
        time_width: int = 1280,
    ):
        super().__init__()
        self._add(lambda width: SKReferenceAttentionV5(width, num_attention_heads, time_width))


class HM5bReferenceAdapter(UpReferenceAdapter):
    """Releases v5b and v5c. The arguments are those of `HM3ReferenceAdapter`."""

    @register_to_config
    def __init__(
        self,
        block_down_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        block_up_channels: tuple[int, ...] = (1280, 1280, 1280, 640),
        num_attention_heads: int = 8,
        use_3d: bool = False,
    ):
        super().__init__()
        self._add(lambda width: STKReferenceModule(width, num_attention_heads))

"""How the config.json of the method's own networks is read."""

from pathlib import Path

from diffusers import ConfigMixin
from safetensors import safe_open

from ..errors import HelloMemeError


class AdapterConfig(ConfigMixin):
    """A config.json that may still hold the key `knitted`.

    Earlier versions wrote it: true for Spatial Knitting Attention, which is all that this package has, and
    false for the plain attention of the ablation, which subclasses in `training` implement.
    """

    config_name = "config.json"
    knitted = True

    @classmethod
    def extract_init_dict(cls, config_dict: dict, **kwargs) -> tuple[dict, dict, dict]:
        """Reads a config as diffusers does. Raises HelloMemeError for one of the other kind of attention."""
        config = dict(config_dict)
        if config.pop("knitted", cls.knitted) is not cls.knitted:
            kind = "Spatial Knitting" if cls.knitted else "plain"
            raise HelloMemeError(f"{cls.__name__} has {kind} attention, and this config asks for the other.")
        return super().extract_init_dict(config, **kwargs)


class TimeWidthFromWeights:
    """Reads the constructor argument `time_width` from a folder's weights where its config.json lacks it, as
    the released ones do. It is the width of the UNet's time embedding."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs):
        """As in diffusers."""
        return super().from_pretrained(folder, **{**cls.sizes_in(folder), **kwargs})

    @classmethod
    def sizes_in(cls, folder: str | Path) -> dict[str, int]:
        """The constructor arguments that the weights in a folder tell, and its config.json does not."""
        weights = Path(folder) / "diffusion_pytorch_model.safetensors"
        if not weights.is_file() or "time_width" in cls.load_config(folder):
            return {}
        with safe_open(weights, "pt") as file:
            name = next((name for name in file.keys() if name.endswith("time_emb_proj.weight")), None)
            return {} if name is None else {"time_width": file.get_slice(name).get_shape()[1]}

"""How the config.json of the method's own networks is read."""

from diffusers import ConfigMixin

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

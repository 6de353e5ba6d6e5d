"""HelloMeme: one face drives another through Spatial Knitting Attentions on a frozen Stable Diffusion 1.5.

`import hellomeme` is fast: classes, and torch or MediaPipe with them, are imported at first use.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {  # class -> submodule
    "HelloMemeError": "errors",
    "NoFaceError": "errors",
    "SKReferenceAttention": "models.attention",
    "SKCrossAttention": "models.attention",
    "HMControlNet": "models.control",
    "HMControlNet2": "models.control",
    "HMV2ControlNet": "models.control",
    "HMV2ControlNet2": "models.control",
    "HMReferenceAdapter": "models.adapters",
    "HMReferenceNet": "models.unet",
    "HMDenoisingNet": "models.unet",
    "FanEncoder": "models.fan_encoder",
    "PatchAutoencoder": "models.autoencoder",
    "Face": "face.detect",
    "FaceAnalyzer": "face.detect",
    "Motion": "face.motion",
    "Settings": "settings",
    "Style": "releases.styles",
    "ClipSettings": "settings",
    "HelloMemePipeline": "pipeline",
    "Reenactor": "reenactor",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted(set(globals()) | set(__all__))

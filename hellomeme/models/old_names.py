"""Import paths that the networks had before, which saved pipelines still name.

A pipeline's `save_pretrained` writes each network's module into model_index.json, and `from_pretrained`
takes only classes of modules that are imported already. Importing this module imports them, under their old
and new names.
"""

import sys

from . import adapters, autoencoder, control, fan_encoder

MOVED = {"autoencoder": autoencoder, "control": control, "emotion": fan_encoder, "networks": adapters}

for old, module in MOVED.items():
    sys.modules.setdefault(f"hellomeme.{old}", module)

"""Drawn heads with ARKit controls: the only training data of the demo model."""

from training.toon.camera import Pose
from training.toon.expression import coefficients, random_expression, random_pose
from training.toon.identity import Identity, make_identity
from training.toon.performance import random_clip, random_stills
from training.toon.render import render

__all__ = [
    "Identity",
    "Pose",
    "coefficients",
    "make_identity",
    "random_clip",
    "random_expression",
    "random_pose",
    "random_stills",
    "render",
]

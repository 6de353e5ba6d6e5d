"""FanEncoder: the motion encoder of PD-FGC, from an aligned face to an expression code (`pd_fpg`).

A face alignment network (one hourglass) is followed by small heads for eyes, emotion and mouth.
Tensor names are those of the released file.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

EMOTION_DIM = 30
WIDTH = 512


class ConvBlock(nn.Module):
    """Three convolutions, their outputs concatenated (1/2, 1/4, 1/4 of the width), with a shortcut."""

    def __init__(self, channel_in: int, channel_out: int):
        super().__init__()
        half, quarter = channel_out // 2, channel_out // 4
        self.bn1, self.conv1 = (
            nn.BatchNorm2d(channel_in),
            nn.Conv2d(channel_in, half, 3, padding=1, bias=False),
        )
        self.bn2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(quarter), nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample = None
        if channel_in != channel_out:
            shortcut = nn.Conv2d(channel_in, channel_out, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(channel_in), nn.ReLU(), shortcut)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(F.relu(self.bn1(x)))
        b = self.conv2(F.relu(self.bn2(a)))
        c = self.conv3(F.relu(self.bn3(b)))
        return torch.cat([a, b, c], dim=1) + (x if self.downsample is None else self.downsample(x))


class HourGlass(nn.Module):
    """Processes a map on `depth` coarser scales and adds the results, coarse to fine."""

    def __init__(self, depth: int, channels: int):
        super().__init__()
        self.depth = depth
        for level in range(1, depth + 1):
            for name in ("b1", "b2", "b3"):
                self.add_module(f"{name}_{level}", ConvBlock(channels, channels))
        self.b2_plus_1 = ConvBlock(channels, channels)

    def forward(self, x: Tensor, level: int | None = None) -> Tensor:
        level = level or self.depth
        b1, b2, b3 = (getattr(self, f"{name}_{level}") for name in ("b1", "b2", "b3"))
        fine = b1(x)
        coarse = b2(F.max_pool2d(x, 2))
        coarse = self.forward(coarse, level - 1) if level > 1 else self.b2_plus_1(coarse)
        return fine + F.interpolate(b3(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)


class FaceAlignmentNetwork(nn.Module):
    """(B, 3, 224, 224) -> (B, 512): 68 landmark maps, folded into one vector."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = ConvBlock(64, 128), ConvBlock(128, 128), ConvBlock(128, 256)
        self.m0 = HourGlass(4, 256)
        self.top_m_0 = ConvBlock(256, 256)
        self.conv_last0, self.bn_end0 = nn.Conv2d(256, 256, 1), nn.BatchNorm2d(256)
        self.l0, self.bn5 = nn.Conv2d(256, 68, 1), nn.BatchNorm2d(68)
        self.conv6 = nn.Conv2d(68, 1, 3, stride=2, padding=1)
        self.fc = nn.Linear(28 * 28, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # (B, 64, 112, 112)
        x = F.max_pool2d(self.conv2(x), 2)
        x = self.conv4(self.conv3(x))  # (B, 256, 56, 56)
        x = self.top_m_0(self.m0(x))
        x = F.relu(self.bn_end0(self.conv_last0(x)))
        x = self.conv6(F.relu(self.bn5(self.l0(x))))  # (B, 1, 28, 28)
        return self.fc(F.relu(x.flatten(1)))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH))


class FanEncoder(ModelMixin, ConfigMixin):
    """The whole encoder: 6 numbers for the eyes, 30 for the emotion, 512 for the mouth."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, pose_dim: int = 6, eye_dim: int = 6):
        super().__init__()
        self.model = FaceAlignmentNetwork()
        self.to_mouth, self.to_eye, self.to_emo = _head(), _head(), _head()
        # `mouth_embed` is in the released file; the code takes the mouth features before it.
        self.mouth_embed = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, WIDTH - pose_dim - eye_dim))
        self.eye_embed = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, eye_dim))
        self.emo_embed = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, EMOTION_DIM))

    def forward(self, faces: Tensor) -> Tensor:
        """Aligned faces (B, 3, 224, 224), RGB in [-1, 1] -> code (B, 548): eyes, emotion, mouth.

        Use in eval mode.
        """
        x = self.model(faces)
        return torch.cat(
            [self.eye_embed(self.to_eye(x)), self.emo_embed(self.to_emo(x)), self.to_mouth(x)], dim=1
        )

    def negative(self) -> Tensor:
        """The code (1, 548) of an all black picture: the negative of guidance in releases v1 and v2."""
        return self(torch.full((1, 3, 224, 224), -1.0, dtype=self.dtype, device=self.device))

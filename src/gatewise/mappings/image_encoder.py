"""A small residual network that makes a vector of an image, to be trained from the beginning with what reads it.

He et al. 2016 (arXiv 1512.03385), basic blocks, in the smaller form that they use for 32 x 32 images, with group
normalisation (Wu & He 2018, arXiv 1803.08494) in place of batch normalisation: what an image becomes does
not depend on the others in its batch. Beside the colours of a pixel stand its coordinates (Liu et al. 2018, arXiv
1807.03247), so that the mean over all places still knows what was where.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.errors import ShapeError
from gatewise.mappings.config import check_size

_GROUP = 8  # channels that are normalised together


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The image encoder."""

    image_size: int = 64
    """Side of the square that images are scaled and cut to, in pixels."""

    image_channels: int = 32
    """Channels of the first stage; each of the following two has twice as many."""

    image_blocks: int = 2
    """Residual blocks of a stage."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_size("image_size", self.image_size, 1 << 12, least=16)
        check_size("image_channels", self.image_channels, 1 << 12)
        check_size("image_blocks", self.image_blocks, 64)


class ImageEncoder(nn.Module):
    """Images to feature maps and vectors.

    Args:
        options: sizes.
        device: of the weights.

    Attributes:
        size: channels of the feature map, and width of the vector.
    """

    def __init__(self, options: ImageOptions, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        first = options.image_channels
        self.size = 4 * first
        self.stem = _conv(5, first, 1, device)
        self.stem_norm = _norm(first, device)
        blocks, channels = [], first
        for stage in range(3):
            for number in range(options.image_blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(_Block(channels, first << stage, stride, device))
                channels = first << stage
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """The feature map (B, C, h, w) of images (B, 3, H, W), bytes or numbers from 0 to 1.

        Raises:
            ShapeError: if they are no images of three colours.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ShapeError(f"expected images (B, 3, H, W), found {tuple(images.shape)}")
        weight = self.stem.weight
        x = images.to(weight.dtype)
        x = (x / 255 if images.dtype == torch.uint8 else x) * 2 - 1
        x = F.avg_pool2d(x, 2)  # half of the pixels in each direction: a fourth of the work
        x = torch.cat((x, places(x)), 1)
        return self.blocks(F.relu(self.stem_norm(self.stem(x))))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(
        self, inside: int, outside: int, stride: int, device: torch.device | str | None
    ) -> None:
        super().__init__()
        self.first, self.first_norm = _conv(inside, outside, stride, device), _norm(outside, device)
        self.second, self.second_norm = _conv(outside, outside, 1, device), _norm(outside, device)
        nn.init.zeros_(self.second_norm.weight)  # each block begins as its shortcut
        same = inside == outside and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Conv2d(inside, outside, 1, stride, bias=False, device=device)
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def places(x: Tensor) -> Tensor:
    """The coordinates (B, 2, H, W) of x's pixels, from -1 to 1."""
    rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:])
    both = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return both.expand(len(x), -1, -1, -1)


def _conv(inside: int, outside: int, stride: int, device: torch.device | str | None) -> nn.Conv2d:
    made = nn.Conv2d(inside, outside, 3, stride, 1, bias=False, device=device)
    if made.weight.device.type != "meta":
        nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def _norm(channels: int, device: torch.device | str | None) -> nn.GroupNorm:
    groups = max(1, channels // _GROUP)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels, device=device)

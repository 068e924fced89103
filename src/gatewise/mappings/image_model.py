"""An image model of the `transformers` library (extra `vision`) in the place of our own image encoder.

It is read once, from a local folder or by its name on a hub, safetensors only, and no code of the model's own is
run; from then on a checkpoint holds it whole: its settings as text, its weights among the others.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.errors import DataError, OptionError, ShapeError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where nobody says
_PIXELS = 224


class PretrainedEncoder(nn.Module):
    """Images to regions, by a model of `transformers`.

    Its batch norms keep their statistics and its dropouts stay off, also while it is fine-tuned: what an image
    becomes does not depend on the others in its batch.

    Args:
        described: what `read_image_model` says of it.
        net: the model; default: built anew, for the weights of a checkpoint.
        frozen: its weights are not trained.

    Attributes:
        size: channels of a region.
    Raises:
        OptionError: if the description is none, or `transformers` is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, described: str, net: nn.Module | None = None, *, frozen: bool) -> None:
        super().__init__()
        try:
            found = json.loads(described)
            self.size, mean, std = int(found["size"]), found["mean"], found["std"]
            settings = dict(found["config"])
        except (ValueError, KeyError, TypeError):
            raise OptionError("--image-model: expected the description of a model") from None
        self.net = net if net is not None else _built(settings)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.net.requires_grad_(not frozen)
        self.train(False)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """It stays in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """The regions (B, C, N) of images (B, 3, H, W), bytes or numbers from 0 to 1.

        Raises:
            ShapeError: if they are no images of three colours.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ShapeError(f"expected images (B, 3, H, W), found {tuple(images.shape)}")
        x = images.to(next(self.net.parameters()).dtype)
        x = ((x / 255 if images.dtype == torch.uint8 else x) - self.mean.to(x)) / self.std.to(x)
        found: Tensor = self.net(pixel_values=x).last_hidden_state
        return found.transpose(1, 2) if found.dim() == 3 else found.flatten(2)


def read_image_model(name: str) -> tuple[str, nn.Module, int]:
    """The model of that name or in that folder: its description, its net, and the pixels that it is made for.

    Raises:
        OptionError: if `transformers` is not installed.
        DataError: if there is none, or it reads no images.
    """
    library = _library()
    try:
        whole = library.AutoModel.from_pretrained(
            name, use_safetensors=True, trust_remote_code=False
        )
        net = getattr(whole, "vision_model", whole).eval()
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"--image-model: expected a model of transformers with safetensors in {name!r}: {reason}"
        ) from None
    prepared = _preparation(library, name)
    pixels = _pixels(prepared, net.config)
    found = {
        "name": name,
        "config": json.loads(whole.config.to_json_string(use_diff=False)),
        "mean": prepared.get("image_mean") or _MEAN,
        "std": prepared.get("image_std") or _STD,
        "size": 0,
    }
    encoder = PretrainedEncoder(json.dumps(found), net, frozen=True)
    try:
        with torch.inference_mode():
            found["size"] = encoder(torch.zeros(1, 3, pixels, pixels)).shape[1]
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"--image-model: expected a model of images, found {name}: {reason}"
        ) from None
    return json.dumps(found), net, pixels


def _built(settings: dict[str, Any]) -> nn.Module:
    """The net of a description, its weights to be filled in."""
    library = _library()
    kind = settings.pop("model_type", None)
    try:
        config = library.AutoConfig.for_model(kind, **settings)
        whole = library.AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OptionError(
            f"--image-model: this version of transformers cannot build {kind!r}: {error}"
        ) from None
    net: nn.Module = getattr(whole, "vision_model", whole)
    return net


def _preparation(library: Any, name: str) -> dict[str, Any]:
    """What its image processor says; nothing where it has none."""
    try:
        found, _ = library.ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        return {}
    return dict(found)


def _pixels(prepared: dict[str, Any], config: Any) -> int:
    """The side of the square that the model was trained on."""
    for part in (prepared.get("crop_size"), prepared.get("size")):
        for value in part.values() if isinstance(part, dict) else (part,):
            if isinstance(value, int) and value >= 16:
                return value
    size = getattr(config, "image_size", _PIXELS)
    return size if isinstance(size, int) else _PIXELS


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise OptionError(
            "--image-model needs transformers, which is not installed: "
            "run pip install 'gatewise[vision]'"
        ) from None
    return transformers

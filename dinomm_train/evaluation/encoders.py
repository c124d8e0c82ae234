"""What turns images into features: networks at rest, and the floors beneath them."""

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import xxhash
from jaxtyping import Float32
from torch import Tensor

from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.images import InputSize, blank_missing, choose_input_size, fit_images
from dinomm_train.models.frozen import FrozenBackbone
from dinomm_train.models.layers import last_tokens

CLS_LAYERS = 4
"""Blocks whose CLS features are kept, as DINO's linear evaluation does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Neighbouring columns of a table of features that a probe may look at."""

    name: str
    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """The same as an index."""
        return slice(self.start, self.stop)


class Encoder(ABC):
    """Maps images to one row of features each; it has no memory and draws no random number."""

    origin: str
    """Where it comes from, in words."""

    checksum: str
    """Stands for everything that decides a feature, but for the images."""

    width: int
    """Columns of the table of features."""

    choices: tuple[Columns, ...]
    """What a linear probe may choose from."""

    plain: Columns
    """What protocols without a choice look at."""

    @abstractmethod
    def encode(
        self, images: Float32[Tensor, "batch channel height width"], sensors: SensorSet
    ) -> Float32[Tensor, "batch feature"]:
        """The features of images of whole patches, seen by these sensors alone."""


class NetworkEncoder(Encoder):
    """CLS features of the last blocks, oldest first, then the mean patch token of the last."""

    def __init__(
        self,
        frozen: FrozenBackbone,
        *,
        patch_px: int,
        config: ExtractionConfig,
        device: torch.device,
    ) -> None:
        """Move the network to the device.

        Args:
            frozen: The network.
            patch_px: Side of the dataset's patches.
            config: Sides of crop and input, and the precision.
            device: Where to compute.

        Raises:
            TrainError: the patches cannot be brought to a size that the network takes.
        """
        self.frozen = frozen
        self.size: InputSize = choose_input_size(frozen, patch_px, config)
        self.origin = frozen.origin
        self.checksum = network_checksum(frozen, self.size, config.precision)
        self._network = frozen.network.to(device)
        self._mixed = torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"
        )
        dim, kept = frozen.network.width, min(CLS_LAYERS, len(frozen.network.vit.blocks))
        self.width = (kept + 1) * dim
        self.choices = _network_choices(dim, kept)
        self.plain = self.choices[0]

    def encode(
        self, images: Float32[Tensor, "batch channel height width"], sensors: SensorSet
    ) -> Float32[Tensor, "batch feature"]:
        """See the base class."""
        fitted = blank_missing(fit_images(images, self.size), self.frozen.expects, sensors)
        with torch.no_grad(), self._mixed:
            tokens = last_tokens(self._network, fitted, blocks=CLS_LAYERS)
        first_patch = self._network.vit.num_prefix_tokens
        patches = tokens[-1][:, first_patch:].float().mean(dim=1)
        return torch.cat([*(layer[:, 0].float() for layer in tokens), patches], dim=1)


def network_checksum(frozen: FrozenBackbone, size: InputSize, precision: str) -> str:
    """A checksum of weights, architecture, input size, fill value and arithmetic."""
    digest = xxhash.xxh3_128()
    about = {
        "architecture": dataclasses.asdict(frozen.architecture),
        "size": dataclasses.asdict(size),
        "fill": frozen.expects.fill,
        "precision": precision,
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    for name, weights in sorted(frozen.network.vit.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _network_choices(dim: int, kept: int) -> tuple[Columns, ...]:
    starts = {"last CLS": (kept - 1) * dim}
    if kept > 1:
        starts[f"last {kept} CLS"] = 0
    return tuple(
        Columns(name=f"{name}{suffix}", start=start, stop=(kept + extra) * dim)
        for name, start in starts.items()
        for suffix, extra in (("", 0), (" + mean patch", 1))
    )

"""DINO-MM pretraining and evaluation on shards of paired radar and optical patches."""

from pathlib import Path
from typing import TYPE_CHECKING

from bigearth_prep.version import __version__

if TYPE_CHECKING:
    import torch

__all__ = ["__version__", "load_backbone"]


def load_backbone(path: str | Path) -> "torch.nn.Module":
    """A network that maps `[batch, channel, height, width]` float values to CLS features.

    Channels and normalization are those of the dataset's card (published weights: stored 8-bit
    values / 255). The network is in evaluation mode, on the CPU, and needs no gradients.

    Args:
        path: A run folder, a checkpoint, an export, or the published weights.

    Raises:
        TrainError: there is nothing at this path that holds such a network.
    """
    from dinomm_train.pretrained import read_frozen_backbone

    return read_frozen_backbone(Path(path)).network

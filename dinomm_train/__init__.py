"""DINO-MM pretraining and evaluation on shards of paired radar and optical patches."""

from pathlib import Path
from typing import TYPE_CHECKING

from bigearth_prep.version import __version__

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dinomm_train.evaluation.config import SensorSet

__all__ = ["__version__", "embed", "load_backbone"]


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


def embed(
    checkpoint: str | Path,
    dataset: str | Path,
    *,
    split: str = "test",
    sensors: "SensorSet" = "s1+s2",
) -> "tuple[list[str], np.ndarray]":
    """Keys of a split's patches in stored order, and their CLS features `[patch, feature]`.

    Patches are whole, resized to the nearest side that the network's tokens tile; a sensor that is
    not named holds the value that stood for a missing one in training.

    Args:
        checkpoint: A run folder, a checkpoint, an export, the published weights, or a timm ViT's
            state dict.
        dataset: A folder that `bigearth-prep build-shards` wrote, or the address of one.
        split: One of its splits.
        sensors: What the network is given: `s1`, `s2` or `s1+s2`.

    Raises:
        TrainError: checkpoint or dataset cannot be read, or do not fit each other.
    """
    import numpy as np

    from dinomm_train.data.location import open_dataset
    from dinomm_train.evaluation.config import ExtractionConfig
    from dinomm_train.evaluation.embeddings import embed_dataset
    from dinomm_train.pretrained import read_frozen_backbone

    stored = open_dataset(dataset)
    frozen = read_frozen_backbone(Path(checkpoint), stored.card)
    config = ExtractionConfig(sensor_sets=(sensors,))
    batches = list(embed_dataset(frozen, stored, (split,), config))
    keys = [key for batch in batches for key in batch.keys]
    rows = [batch.features[sensors] for batch in batches]
    return keys, np.concatenate([np.zeros((0, frozen.network.width), np.float32), *rows])

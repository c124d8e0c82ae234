"""Frozen features with their keys, as a Parquet file, a Zarr group, or arrays."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from bigearth_prep.card import SPLITS
from bigearth_prep.terminal import progress_bar
from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import choose_device
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.embedding_files import EmbeddedBatch, write_parquet, write_zarr
from dinomm_train.evaluation.encoders import NetworkEncoder
from dinomm_train.evaluation.images import choose_sensor_sets, in_batches, read_images
from dinomm_train.models.frozen import FrozenBackbone, require_same_input
from dinomm_train.transfer import to_host


def embed_dataset(
    frozen: FrozenBackbone,
    dataset: StoredDataset,
    splits: tuple[str, ...],
    config: ExtractionConfig,
) -> Iterator[EmbeddedBatch]:
    """Features of all patches of some splits, batch by batch.

    Raises:
        TrainError: the dataset does not hold what the network was trained on, or lacks a sensor.
    """
    require_same_input(frozen, dataset.card, dataset.location)
    sensor_sets = choose_sensor_sets(dataset, config.sensor_sets)
    device = choose_device(config.device)
    encoder = NetworkEncoder(
        frozen, patch_px=dataset.card.patch.size_px, config=config, device=device
    )
    for split in map(dataset.split, splits):
        batches = in_batches(np.arange(len(split)), config.batch_size)
        with closing(read_images(dataset, split, batches, device)) as images_of:
            encoded = _encode_ahead(encoder, images_of, sensor_sets)
            for batch, features in zip(batches, encoded, strict=True):
                keys = tuple(split.key(int(position)) for position in batch)
                yield EmbeddedBatch(split=split.name, keys=keys, features=features)


def _encode_ahead(
    encoder: NetworkEncoder, images_of: Iterable[Tensor], sensor_sets: tuple[SensorSet, ...]
) -> Iterator[dict[SensorSet, Float32[np.ndarray, "batch feature"]]]:
    """Features of each batch; a GPU goes on with the next one while they are used."""
    launched: deque[dict[SensorSet, Callable[[], Tensor]]] = deque()
    for images in images_of:
        launched.append(
            {
                sensors: to_host(encoder.encode(images, sensors)[:, encoder.plain.slice])
                for sensors in sensor_sets
            }
        )
        if len(launched) > 1:
            yield {sensors: wait().numpy() for sensors, wait in launched.popleft().items()}
    for last in launched:
        yield {sensors: wait().numpy() for sensors, wait in last.items()}


def write_embeddings(
    frozen: FrozenBackbone, dataset: StoredDataset, path: Path, config: ExtractionConfig
) -> int:
    """The number of rows written: one per patch and sensor set, splits in stored order.

    A path that ends in `.zarr` becomes a Zarr group: an array `key`, one of `split`, and one of
    features per sensor set. Any other becomes a Parquet file with columns `key`, `split`, `sensors`
    and `features`. Both say which network made the features from which dataset.

    Raises:
        TrainError: the dataset does not hold what the network was trained on, or lacks a sensor.
    """
    sensor_sets = choose_sensor_sets(dataset, config.sensor_sets)
    config = dataclasses.replace(config, sensor_sets=sensor_sets)
    splits = tuple(name for name in SPLITS if name in dataset.card.splits)
    batches = _with_progress(frozen, dataset, splits, config)
    write = write_zarr if path.suffix == ".zarr" else write_parquet
    return write(batches, path, _about(frozen, dataset), frozen.network.width)


def _with_progress(
    frozen: FrozenBackbone,
    dataset: StoredDataset,
    splits: tuple[str, ...],
    config: ExtractionConfig,
) -> Iterator[EmbeddedBatch]:
    total = sum(dataset.card.splits[name].samples for name in splits)
    with progress_bar(total, "patches") as advance:
        for batch in embed_dataset(frozen, dataset, splits, config):
            yield batch
            advance(len(batch.keys))


def _about(frozen: FrozenBackbone, dataset: StoredDataset) -> dict[str, str]:
    return {
        "network": frozen.origin,
        "input": frozen.expects.to_json(),
        "dataset": dataset.location,
        "dataset_checksum": dataset.checksum,
    }

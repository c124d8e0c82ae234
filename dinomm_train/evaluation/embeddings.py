"""Frozen features with their keys, as a Parquet file, a Zarr group, or arrays."""

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from bigearth_prep.card import SPLITS
from bigearth_prep.terminal import progress_bar
from bigearth_prep.whole_file import whole_file
from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import choose_device
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.encoders import NetworkEncoder
from dinomm_train.evaluation.images import choose_sensor_sets, in_batches, read_images
from dinomm_train.models.frozen import FrozenBackbone, require_same_input

if TYPE_CHECKING:
    import zarr

_ROWS_PER_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedBatch:
    """Some patches of one split in stored order."""

    split: str
    keys: tuple[str, ...]
    features: dict[SensorSet, Float32[np.ndarray, "batch feature"]]
    """CLS features after the last block, by what the network was given."""


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
        images_of = read_images(dataset, split, batches, device)
        for batch, images in zip(batches, images_of, strict=True):
            yield EmbeddedBatch(
                split=split.name,
                keys=tuple(split.key(int(position)) for position in batch),
                features={
                    sensors: encoder.encode(images, sensors)[:, encoder.plain.slice].cpu().numpy()
                    for sensors in sensor_sets
                },
            )


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
    write = _write_zarr if path.suffix == ".zarr" else _write_parquet
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


def _write_parquet(
    batches: Iterator[EmbeddedBatch], path: Path, about: dict[str, str], width: int
) -> int:
    fields = [("key", pa.string()), ("split", pa.string()), ("sensors", pa.string())]
    features = ("features", pa.list_(pa.float32(), width))
    schema = pa.schema([*fields, features], metadata=about)
    rows = 0
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for batch in batches:
            for sensors, values in batch.features.items():
                columns = [
                    pa.array(batch.keys),
                    pa.repeat(batch.split, len(batch.keys)),
                    pa.repeat(sensors, len(batch.keys)),
                    pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width),
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                rows += len(batch.keys)
    return rows


def _write_zarr(
    batches: Iterator[EmbeddedBatch], path: Path, about: dict[str, str], width: int
) -> int:
    import zarr

    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.open_group(partial, mode="w-", zarr_format=3, attributes={**about})
    arrays: dict[SensorSet, _GrowingArray] = {}
    texts: dict[str, list[str]] = {"key": [], "split": []}
    for batch in batches:
        for sensors, values in batch.features.items():
            if sensors not in arrays:
                arrays[sensors] = _GrowingArray(group, sensors, width)
            arrays[sensors].append(values)
        texts["key"] += batch.keys
        texts["split"] += [batch.split] * len(batch.keys)
    for name, column in texts.items():
        array = group.create_array(
            name, shape=(len(column),), dtype="string", dimension_names=("sample",)
        )
        array[:] = np.array(column, dtype=object)
    rows = sum(array.close() for array in arrays.values())
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)
    return rows


class _GrowingArray:
    """Rows of a Zarr array, written in whole chunks."""

    def __init__(self, group: "zarr.Group", name: str, width: int) -> None:
        self._array = group.create_array(
            name,
            shape=(0, width),
            chunks=(_ROWS_PER_CHUNK, width),
            dtype="float32",
            dimension_names=("sample", "feature"),
        )
        self._waiting: list[Float32[np.ndarray, "batch feature"]] = []

    def append(self, rows: Float32[np.ndarray, "batch feature"]) -> None:
        """Take the rows, and write those that fill a chunk."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _ROWS_PER_CHUNK:
            joined = np.concatenate(self._waiting)
            whole = len(joined) - len(joined) % _ROWS_PER_CHUNK
            self._array.append(joined[:whole])
            self._waiting = [joined[whole:]]

    def close(self) -> int:
        """Write what is left; the number of rows."""
        self._array.append(np.concatenate(self._waiting))
        return int(self._array.shape[0])

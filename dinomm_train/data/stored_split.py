"""One split of a dataset: its samples in stored order, and where each one's bytes lie."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from jaxtyping import Int32, Int64, UInt8, UInt64

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import MANIFEST_NAME, DatasetCard, ShardCard
from dinomm_train.data.shard_file import ShardStore
from dinomm_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArrays:
    """Where one sensor's arrays lie, one per sample."""

    shape: tuple[int, int, int]
    """Band, height, width; no bands where the dataset lacks the sensor."""

    dtype: np.dtype
    """Type of a stored value."""

    offsets: Int64[np.ndarray, " sample"]
    """First byte of the array in its shard."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample's array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def first(self, count: int) -> "StoredArrays":
        """The arrays of the first samples only."""
        return replace(self, offsets=self.offsets[:count])


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSplit:
    """One split: its samples in stored order. A position is an index into every array here."""

    name: str
    """Train, validation or test."""

    table: pa.Table
    """The split's rows of the manifest, with every column (key, labels, country, times)."""

    sample_ids: UInt64[np.ndarray, " sample"]
    """A number that stands for the key alone, wherever the sample is stored; seeds its views."""

    labels: UInt8[np.ndarray, "sample class"]
    """1 where the class is present."""

    folder: Path
    """Where the shards lie, or will lie once they are fetched."""

    shards: tuple[ShardCard, ...]
    """Shards in stored order, by their path relative to the folder."""

    store: ShardStore
    """Opens them."""

    shard_of: Int32[np.ndarray, " sample"]
    """Index into `shards`."""

    arrays: dict[Sensor, StoredArrays]
    """Both sensors' arrays."""

    def __len__(self) -> int:
        return len(self.shard_of)

    @property
    def shard_paths(self) -> tuple[Path, ...]:
        """Shard files in stored order."""
        return tuple(self.folder / shard.name for shard in self.shards)

    def checksums(self) -> UInt64[np.ndarray, " sample"]:
        """xxh3_64 of each sample's stored arrays.

        Raises:
            TrainError: the manifest has none.
        """
        if "xxh3_64" not in self.table.column_names:
            raise TrainError(
                f"{self.folder / MANIFEST_NAME} lacks the column xxh3_64; read without "
                "--verify-reads, or build the dataset again"
            )
        checksums: UInt64[np.ndarray, " sample"] = self.table["xxh3_64"].to_numpy()
        return checksums

    def key(self, position: int) -> str:
        """The sample's key, the Sentinel-2 patch name."""
        return str(self.table["key"][position])

    def first(self, count: int) -> "StoredSplit":
        """The split cut down to its first samples in stored order; whole if it has no more."""
        return replace(
            self,
            table=self.table.slice(0, count),
            sample_ids=self.sample_ids[:count],
            labels=self.labels[:count],
            shard_of=self.shard_of[:count],
            arrays={sensor: arrays.first(count) for sensor, arrays in self.arrays.items()},
        )


def open_split(
    name: str, *, folder: Path, card: DatasetCard, table: pa.Table, store: ShardStore
) -> StoredSplit:
    """The split whose rows of the manifest these are.

    Args:
        name: Which one.
        folder: Holds card and manifest.
        card: Of the dataset.
        table: The split's rows, in stored order.
        store: Opens the shards.

    Raises:
        TrainError: the rows do not fit the card.
    """
    shards = card.splits[name].shards
    split = StoredSplit(
        name=name,
        table=table,
        sample_ids=_sample_ids(table),
        labels=_multi_hot(folder, table, card.labels.classes),
        folder=folder,
        shards=shards,
        store=store,
        shard_of=_shard_of(folder, table, shards),
        arrays={sensor: _arrays_of(card, sensor, table) for sensor in SENSORS},
    )
    _check_rows(folder, split, card)
    return split


def _sample_ids(table: pa.Table) -> UInt64[np.ndarray, " sample"]:
    digests = (xxhash.xxh3_64_intdigest(key.encode()) for key in table["key"].to_pylist())
    return np.fromiter(digests, dtype=np.uint64, count=len(table))


def _multi_hot(
    path: Path, table: pa.Table, classes: tuple[str, ...]
) -> UInt8[np.ndarray, "sample class"]:
    labels = table["labels"].combine_chunks()
    names = pc.list_flatten(labels)
    columns = pc.index_in(names, value_set=pa.array(classes, type=names.type))
    if columns.null_count:
        unknown = names.filter(pc.is_null(columns))[0]
        raise TrainError(
            f"{path / MANIFEST_NAME}: label {str(unknown)!r} is not among the card's classes; "
            "build the dataset again"
        )
    hot = np.zeros((len(table), len(classes)), dtype=np.uint8)
    hot[pc.list_parent_indices(labels).to_numpy(), columns.to_numpy()] = 1
    return hot


def _shard_of(
    path: Path, table: pa.Table, shards: tuple[ShardCard, ...]
) -> Int32[np.ndarray, " sample"]:
    names = pa.array([shard.name for shard in shards], type=pa.string())
    indices = pc.index_in(table["shard"].cast(pa.string()), value_set=names)
    if indices.null_count:
        unknown = table["shard"].filter(pc.is_null(indices))[0]
        raise TrainError(
            f"{path / MANIFEST_NAME} names shard {unknown}, which the card does not list; "
            "manifest and card are of different builds, copy both again"
        )
    shard_of: Int32[np.ndarray, " sample"] = indices.to_numpy().astype(np.int32)
    return shard_of


def _arrays_of(card: DatasetCard, sensor: Sensor, table: pa.Table) -> StoredArrays:
    offsets = pc.fill_null(table[f"offset_{sensor}"].cast(pa.int64()), 0)
    return StoredArrays(
        shape=(len(card.sensor_bands(sensor)), card.patch.size_px, card.patch.size_px),
        dtype=np.dtype(card.sensors[sensor].dtype if sensor in card.sensors else np.uint8),
        offsets=offsets.to_numpy(),
    )


def _check_rows(path: Path, split: StoredSplit, card: DatasetCard) -> None:
    expected = card.splits[split.name].samples
    if len(split) != expected:
        raise TrainError(
            f"{path / MANIFEST_NAME} has {len(split):,} rows of split {split.name}, the card says "
            f"{expected:,}; manifest and card are of different builds, copy both again"
        )
    shard_bytes = np.array([shard.bytes for shard in card.splits[split.name].shards])
    for sensor, arrays in split.arrays.items():
        ends = arrays.offsets + arrays.sample_bytes
        outside = np.flatnonzero((arrays.offsets < 0) | (ends > shard_bytes[split.shard_of]))
        if len(outside):
            raise TrainError(
                f"sample {split.key(int(outside[0]))}: its {sensor} array does not lie within its "
                f"shard; {path / MANIFEST_NAME} is of another build, copy it again"
            )

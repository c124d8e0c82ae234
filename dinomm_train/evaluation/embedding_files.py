"""Files of features with their keys: a Parquet file or a Zarr group, written as batches come."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from bigearth_prep.whole_file import whole_file
from dinomm_train.evaluation.config import SensorSet

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


def write_parquet(
    batches: Iterable[EmbeddedBatch], path: Path, about: dict[str, str], width: int
) -> int:
    """The rows written: one per patch and sensor set, in row groups of some thousand patches.

    Args:
        batches: What to write; those of a split follow each other.
        path: The file, which appears whole or not at all.
        about: What its metadata say.
        width: Features of a row.
    """
    fields = [("key", pa.string()), ("split", pa.string()), ("sensors", pa.string())]
    features = ("features", pa.list_(pa.float32(), width))
    schema = pa.schema([*fields, features], metadata=about)
    rows = 0
    # Floats hardly repeat: a dictionary of them makes the file larger and takes most of the time.
    repeated = ["split", "sensors"]
    with (
        whole_file(path) as partial,
        pq.ParquetWriter(partial, schema, use_dictionary=repeated) as writer,
    ):
        for batch in _in_chunks(batches):
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


def _in_chunks(batches: Iterable[EmbeddedBatch]) -> Iterator[EmbeddedBatch]:
    """The batches of each split joined to as many rows as a chunk holds, or more."""
    for _, of_split in groupby(batches, key=lambda batch: batch.split):
        waiting: list[EmbeddedBatch] = []
        for batch in of_split:
            waiting.append(batch)
            if sum(len(one.keys) for one in waiting) >= _ROWS_PER_CHUNK:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)


def _joined(batches: Sequence[EmbeddedBatch]) -> EmbeddedBatch:
    return EmbeddedBatch(
        split=batches[0].split,
        keys=tuple(chain.from_iterable(one.keys for one in batches)),
        features={
            sensors: np.concatenate([one.features[sensors] for one in batches])
            for sensors in batches[0].features
        },
    )


def write_zarr(
    batches: Iterable[EmbeddedBatch], path: Path, about: dict[str, str], width: int
) -> int:
    """The rows written: an array `key`, one of `split`, and one of features per sensor set.

    Args:
        batches: What to write.
        path: The group, which appears whole or not at all; one that is there is replaced.
        about: Its attributes.
        width: Features of a row.
    """
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

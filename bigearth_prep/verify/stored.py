"""What a dataset says it holds: the card and the manifest, opened once per process."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import CARD_NAME, MANIFEST_NAME, DatasetCard, read_card
from bigearth_prep.manifest import read_manifest


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """What all of a sensor's stored arrays have in common."""

    dtype: np.dtype
    shape: tuple[int, int, int]
    bytes: int


@dataclass(frozen=True)
class StoredDataset:
    """A dataset's folder, card and manifest."""

    folder: Path
    card: DatasetCard
    manifest: pa.Table

    @cached_property
    def kinds(self) -> dict[Sensor, ArrayKind]:
        """The arrays of each sensor, in the order of the manifest's checksums."""
        card = self.card
        return {
            sensor: ArrayKind(
                np.dtype(card.sensors[sensor].dtype),
                card.array_shape(sensor),
                card.array_bytes(sensor),
            )
            for sensor in SENSORS
            if sensor in card.sensors
        }

    @cached_property
    def _slices(self) -> dict[str, tuple[int, int]]:
        """First row and number of rows of each shard; rows apart from the rest do not count."""
        slices: dict[str, tuple[int, int]] = {}
        runs = pc.run_end_encode(self.manifest.column("shard").combine_chunks())
        start = 0
        for name, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            slices.setdefault(name, (start, end - start))
            start = end
        return slices

    def rows_of_shard(self, name: str) -> Int64[np.ndarray, " row"]:
        """Which manifest rows name this shard, in stored order."""
        start, count = self._slices.get(name, (0, 0))
        return np.arange(start, start + count)

    def rows_of_split(self, split: str) -> Int64[np.ndarray, " row"]:
        """Which manifest rows are of this split, in stored order."""
        return np.flatnonzero(pc.equal(self.manifest.column("split"), split).to_numpy())


def open_stored(folder: Path) -> StoredDataset:
    """The dataset in this folder, read again only when its card or manifest has changed.

    Raises:
        PrepError: the card or the manifest cannot be read.
    """
    stamps = tuple(_stamp(folder / name) for name in (CARD_NAME, MANIFEST_NAME))
    return _open_at(folder, stamps)


@lru_cache(maxsize=1)
def _open_at(folder: Path, _stamps: tuple[tuple[int, ...], ...]) -> StoredDataset:
    return StoredDataset(folder, read_card(folder), read_manifest(folder).combine_chunks())


def _stamp(path: Path) -> tuple[int, ...]:
    if not path.exists():
        return ()
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino

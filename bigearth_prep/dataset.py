"""A finished dataset as a sequence of samples, read by position."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Shaped

from bigearth_prep.bands import Sensor
from bigearth_prep.card import DatasetCard, read_card
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import multi_hot
from bigearth_prep.manifest import read_manifest
from bigearth_prep.zarr_group import pixel_shard_name


@dataclass(frozen=True)
class SplitSamples:
    """One split: `len()`, indexing, pickling; usable as a PyTorch map-style dataset.

    An item is a dict of `s2` and `s1` (`[band, height, width]` as stored, where the dataset
    holds the sensor), `labels` (`[class]`, uint8, in the card's order) and `key`.
    """

    dataset: Path
    split: str

    @cached_property
    def card(self) -> DatasetCard:
        """The dataset's card."""
        return read_card(self.dataset)

    @cached_property
    def manifest(self) -> pa.Table:
        """The manifest rows of this split, in stored order."""
        table = read_manifest(self.dataset)
        return table.filter(pc.equal(table.column("split"), self.split)).combine_chunks()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in split {self.split}")
        row = self.manifest.slice(index % len(self), 1).to_pylist()[0]
        labels = multi_hot(row["labels"], self.card.labels.classes)
        item: dict[str, Any] = {"labels": labels, "key": row["key"]}
        return item | {sensor: self.read_array(row, sensor) for sensor in self.card.sensors}

    def __getstate__(self) -> dict[str, Any]:
        """The path and the name only: each process opens the files for itself."""
        return {"dataset": self.dataset, "split": self.split}

    def read_array(
        self, row: dict[str, Any], sensor: Sensor
    ) -> Shaped[np.ndarray, "band height width"]:
        """One sensor's stored array of a manifest row, by one positional read.

        Raises:
            PrepError: the shard is missing or ends before the array does.
        """
        path, start = self._place(row, sensor)
        size = self.card.array_bytes(sensor)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise PrepError(f"{path}: {error.strerror}; run verify") from error
        try:
            content = os.pread(descriptor, size, start)
        finally:
            os.close(descriptor)
        if len(content) != size:
            raise PrepError(f"{path} ends inside the {sensor} array of {row['key']}; run verify")
        dtype = np.dtype(self.card.sensors[sensor].dtype)
        return np.frombuffer(content, dtype).reshape(self.card.array_shape(sensor)).copy()

    def _place(self, row: dict[str, Any], sensor: Sensor) -> tuple[Path, int]:
        """The file with a sensor's array, and the byte where it begins: in a tar, or in Zarr."""
        zarr = self.card.splits[self.split].zarr
        if row[f"offset_{sensor}"] is not None or zarr is None:
            return self.dataset / row["shard"], row[f"offset_{sensor}"]
        number, place = divmod(row["index_in_shard"], zarr.samples_per_shard)
        name = pixel_shard_name(self.split, sensor, number)
        return self.dataset / name, place * self.card.array_bytes(sensor)


def open_dataset(path: str | Path, split: str) -> SplitSamples:
    """The samples of one split of a finished dataset.

    Raises:
        PrepError: the folder is no finished dataset, or has no such split.
    """
    samples = SplitSamples(Path(path), split)
    if split not in samples.card.splits:
        known = ", ".join(samples.card.splits)
        raise PrepError(f"{path} has no split {split!r}; it has {known}")
    return samples

"""The files of one shard, filled together: a tar, a shard file of each Zarr array, or both."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from jaxtyping import Shaped

from bigearth_prep.bands import Sensor
from bigearth_prep.card import ShardCard
from bigearth_prep.shard_writers.webdataset import ShardStream, StoredSample, open_shard
from bigearth_prep.shard_writers.zarr import ZarrShardStream, open_zarr_shard


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFileNames:
    """The files that one shard is written to, by their paths relative to the dataset."""

    tar: str | None
    zarr: dict[Sensor, str]
    """Shard file of each sensor's array; none where no Zarr is asked for."""

    capacity: int
    """Samples that every shard of the build is planned for, the last of a split excepted."""


class ShardFiles:
    """Adds each sample to all open files of a shard."""

    def __init__(
        self, names: ShardFileNames, tar: ShardStream | None, zarr: Mapping[Sensor, ZarrShardStream]
    ) -> None:
        self._names = names
        self._tar = tar
        self._zarr = zarr
        self._samples = 0

    def add(
        self,
        key: str,
        arrays: Mapping[Sensor, Shaped[np.ndarray, "band height width"]],
        fields: Mapping[str, Any],
    ) -> StoredSample:
        """Append one sample to every file, and say where it lies in the tar, if there is one."""
        content = xxhash.xxh3_64()
        for sensor, stream in self._zarr.items():
            pixels = np.ascontiguousarray(arrays[sensor]).reshape(-1).view(np.uint8).data
            stream.add(pixels)
            content.update(pixels)
        self._samples += 1
        if self._tar is not None:
            return self._tar.add(key, arrays, fields)
        return StoredSample(self._samples - 1, {}, content.intdigest())

    def cards(self) -> list[ShardCard]:
        """Size and checksum of each file, the tar first; true once the files are closed."""
        cards = [stream.card(self._names.zarr[sensor]) for sensor, stream in self._zarr.items()]
        if self._tar is None or self._names.tar is None:
            return cards
        tar = ShardCard(
            name=self._names.tar,
            samples=self._tar.samples,
            bytes=self._tar.size_bytes,
            xxh3_128=self._tar.xxh3_128,
        )
        return [tar, *cards]


@contextmanager
def open_shard_files(dataset: Path, names: ShardFileNames) -> Iterator[ShardFiles]:
    """The files of a shard to add samples to; each appears when the block succeeds."""
    with ExitStack() as stack:
        tar = stack.enter_context(open_shard(dataset / names.tar)) if names.tar else None
        zarr = {
            sensor: stack.enter_context(open_zarr_shard(dataset / name, names.capacity))
            for sensor, name in names.zarr.items()
        }
        yield ShardFiles(names, tar, zarr)

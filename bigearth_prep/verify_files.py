"""What verifying a tar and a shard file of a Zarr array have in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from jaxtyping import UInt8

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import DatasetCard, ShardCard
from bigearth_prep.whole_file import xxh3_128_of

Rows = list[dict[str, Any]]
"""Manifest rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """How much of a dataset is read."""

    threads: int
    """Shards read at a time."""

    samples_per_shard: int | None = None
    """Samples of each shard whose pixels are read; all by default.

    With a number, files are held against their size alone and not against their checksum.
    """

    seed: int = 0
    """Which samples those are."""

    def __post_init__(self) -> None:
        if self.samples_per_shard is not None and self.samples_per_shard < 1:
            raise ValueError(f"samples per shard must be positive, got {self.samples_per_shard}")

    @property
    def reads_all(self) -> bool:
        """Whether every byte is read."""
        return self.samples_per_shard is None

    def chosen(self, shard: str, samples: int) -> list[int]:
        """Places of the samples to read in a shard that holds so many."""
        if self.samples_per_shard is None or samples <= self.samples_per_shard:
            return list(range(samples))
        rng = np.random.default_rng(xxhash.xxh3_64_intdigest(shard.encode(), self.seed))
        return sorted(rng.choice(samples, self.samples_per_shard, replace=False).tolist())


def check_file(dataset: Path, shard: ShardCard, *, hashed: bool) -> Iterator[str]:
    """What is wrong with a shard file as a whole."""
    path = dataset / shard.name
    if not path.is_file():
        yield f"{shard.name} is missing"
        return
    size = path.stat().st_size
    if size != shard.bytes:
        yield f"{shard.name} is {size} bytes, dataset.json says {shard.bytes}"
    if hashed and (found := xxh3_128_of(path)) != shard.xxh3_128:
        yield f"{shard.name} has xxh3_128 {found}, dataset.json says {shard.xxh3_128}"


def open_bytes(path: Path) -> UInt8[np.ndarray, " byte"]:
    """The file's bytes, read when they are looked at; none where there is no file."""
    if not path.is_file() or path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, "r")


def check_pixels(
    card: DatasetCard, where: str, row: dict[str, Any], pixels: dict[Sensor, np.ndarray]
) -> Iterator[str]:
    """What is wrong with the bytes of a sample's arrays.

    Args:
        card: The dataset's card.
        where: The shard and the sample, to begin a message with.
        row: The sample's manifest row.
        pixels: The bytes found in place of each sensor's array.
    """
    digest = xxhash.xxh3_64()
    for sensor in SENSORS:
        if sensor not in pixels:
            continue
        found = pixels[sensor]
        digest.update(found.data)
        if len(found) != card.array_bytes(sensor):
            yield f"{where}: the shard ends inside the {sensor} array"
        elif not np.isfinite(found.view(card.sensors[sensor].dtype)).all():
            yield f"{where}: the {sensor} array holds values that are not finite"
    if digest.intdigest() != row["xxh3_64"]:
        yield f"{where}: stored arrays do not match xxh3_64 of the manifest"

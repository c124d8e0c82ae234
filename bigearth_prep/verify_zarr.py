"""The Zarr group of a split against the card and the manifest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import DatasetCard, ZarrCard
from bigearth_prep.shard_writers.zarr import shard_index
from bigearth_prep.verify_files import VerifyConfig, check_file, check_pixels, open_bytes
from bigearth_prep.zarr_group import group_files, group_name, pixel_shard_name


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A split's Zarr group, with what it should hold."""

    dataset: Path
    card: DatasetCard
    split: str
    zarr: ZarrCard
    rows: pa.Table
    """The split's manifest rows, in stored order."""

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """Sensors with an array, in the order of the manifest's checksums."""
        return tuple(sensor for sensor in SENSORS if sensor in self.card.sensors)


def check_group(group: StoredGroup) -> Iterator[str]:
    """What is wrong with a group's list of files, its metadata, labels and keys."""
    listed = {shard.name for shard in group.zarr.shards}
    expected = {
        pixel_shard_name(group.split, sensor, number)
        for sensor in group.sensors
        for number in range(group.zarr.shard_count(len(group.rows)))
    }
    for name in sorted(expected - listed):
        yield f"dataset.json does not list {name}, which holds samples of the manifest"
    for name, content in group_files(group.card, group.split, group.rows):
        listed.add(name)
        path = group.dataset / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.read_bytes() != content:
            yield f"{name} is not what dataset.json and manifest.parquet say"
    for path in sorted((group.dataset / group_name(group.split)).rglob("*")):
        name = str(path.relative_to(group.dataset))
        if path.is_file() and name not in listed:
            yield f"{name} is in no list of dataset.json"


def check_zarr_shard(group: StoredGroup, number: int, config: VerifyConfig) -> Iterator[str]:
    """What is wrong with the shard file of this number in every array, and with its samples."""
    capacity = group.zarr.samples_per_shard
    rows = group.rows.slice(number * capacity, capacity).to_pylist()
    files = {shard.name: shard for shard in group.zarr.shards}
    contents: dict[Sensor, np.ndarray] = {}
    for sensor in group.sensors:
        name = pixel_shard_name(group.split, sensor, number)
        if name in files:
            yield from check_file(group.dataset, files[name], hashed=config.reads_all)
        contents[sensor] = open_bytes(group.dataset / name)
        size = group.card.array_bytes(sensor)
        index = shard_index(len(rows), capacity, size)
        if contents[sensor][len(rows) * size :].tobytes() != index:
            yield f"{name} does not end with the index of {len(rows)} samples"
    for place in config.chosen(f"{group.split} {number}", len(rows)):
        where = f"{group_name(group.split)}, {rows[place]['key']}"
        pixels = {
            sensor: _sample_of(contents[sensor], place, group.card.array_bytes(sensor))
            for sensor in group.sensors
        }
        yield from check_pixels(group.card, where, rows[place], pixels)


def _sample_of(content: np.ndarray, place: int, size: int) -> np.ndarray:
    return content[place * size : (place + 1) * size]

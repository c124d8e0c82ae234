"""The Zarr group of a split against the card and the manifest."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from bigearth_prep.bands import Sensor
from bigearth_prep.card import ShardCard, ZarrCard
from bigearth_prep.shard_writers.zarr import shard_index
from bigearth_prep.verify.arrays import check_arrays, check_checksum, check_size
from bigearth_prep.verify.config import VerifyConfig, first_of
from bigearth_prep.verify.hashed_file import HashedFile, open_hashed
from bigearth_prep.verify.stored import StoredDataset
from bigearth_prep.zarr_group import group_files, group_name, pixel_shard_name


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A split's Zarr group, with what it should hold."""

    stored: StoredDataset
    split: str
    zarr: ZarrCard
    places: Int64[np.ndarray, " row"]
    """The split's manifest rows, in stored order."""

    @property
    def rows(self) -> pa.Table:
        """Those rows themselves."""
        return self.stored.manifest.take(self.places)

    def shard_files(self, number: int) -> dict[Sensor, ShardCard | None]:
        """The shard file of this number in each sensor's array, None where none is listed."""
        listed = {shard.name: shard for shard in self.zarr.shards}
        return {
            sensor: listed.get(pixel_shard_name(self.split, sensor, number))
            for sensor in self.stored.kinds
        }


def group_of(stored: StoredDataset, split: str) -> StoredGroup | None:
    """The group of a split, if the card has one."""
    zarr = stored.card.splits[split].zarr
    return StoredGroup(stored, split, zarr, stored.rows_of_split(split)) if zarr else None


def check_group(group: StoredGroup) -> Iterator[str]:
    """What is wrong with a group's list of files, its metadata, labels and keys."""
    stored, split = group.stored, group.split
    listed = {shard.name for shard in group.zarr.shards}
    expected = {
        pixel_shard_name(split, sensor, number)
        for sensor in stored.kinds
        for number in range(group.zarr.shard_count(len(group.places)))
    }
    for name in sorted(expected - listed):
        yield f"dataset.json does not list {name}, which holds samples of the manifest"
    try:
        contents = dict(group_files(stored.card, split, group.rows))
    except KeyError as error:
        yield f"{group_name(split)} cannot hold labels of the manifest: {error} is no class"
        return
    listed |= contents.keys()
    for name, content in contents.items():
        path = stored.folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.read_bytes() != content:
            yield f"{name} is not what dataset.json and manifest.parquet say"
    for path in sorted((stored.folder / group_name(split)).rglob("*")):
        name = str(path.relative_to(stored.folder))
        if path.is_file() and name not in listed:
            yield f"{name} is in no list of dataset.json"


def check_zarr_shards(group: StoredGroup, number: int, config: VerifyConfig) -> Iterator[str]:
    """What is wrong with the shard files of this number, and with their samples."""
    files = {sensor: file for sensor, file in group.shard_files(number).items() if file}
    for file in files.values():
        yield from check_size(group.stored.folder, file)
    present = {
        sensor: file
        for sensor, file in files.items()
        if (group.stored.folder / file.name).is_file()
    }
    capacity = group.zarr.samples_per_shard
    places = group.places[number * capacity : (number + 1) * capacity]
    total = len(group.stored.manifest)
    if config.reads_all(total):
        yield from _check_whole(group, present, places)
    else:
        chosen = np.flatnonzero(config.chosen(total)[places])
        yield from _check_chosen(group, present, places, chosen)


def _check_whole(
    group: StoredGroup, files: dict[Sensor, ShardCard], places: Int64[np.ndarray, " row"]
) -> Iterator[str]:
    kinds, folder = group.stored.kinds, group.stored.folder
    with ExitStack() as stack:
        streams: dict[Sensor, HashedFile] = {
            sensor: stack.enter_context(open_hashed(folder / file.name))
            for sensor, file in files.items()
        }

        def take(sensor: Sensor, _: int) -> memoryview:
            return streams[sensor].take(kinds[sensor].bytes)

        if len(streams) == len(group.stored.kinds):
            found = _check_samples(group, places, range(len(places)), take)
            yield from first_of(found, group_name(group.split))
        for sensor, stream in streams.items():
            yield from _check_end(group, files[sensor], stream, sensor, len(places))


def _check_end(
    group: StoredGroup, file: ShardCard, stream: HashedFile, sensor: Sensor, samples: int
) -> Iterator[str]:
    """The index behind the samples, and the checksum of all."""
    size = group.stored.kinds[sensor].bytes
    if stream.position == 0:
        stream.take(samples * size)
    index = shard_index(samples, group.zarr.samples_per_shard, size)
    found = bytes(stream.take(len(index)))
    left, checksum = stream.finish()
    if found != index or left:
        yield f"{file.name} does not end with the index of {samples} samples"
    yield from check_checksum(file, checksum)


def _check_chosen(
    group: StoredGroup,
    files: dict[Sensor, ShardCard],
    places: Int64[np.ndarray, " row"],
    chosen: Int64[np.ndarray, " chosen"],
) -> Iterator[str]:
    kinds, folder = group.stored.kinds, group.stored.folder
    if len(files) < len(group.stored.kinds):
        return
    with ExitStack() as stack:
        descriptors = {
            sensor: stack.enter_context((folder / file.name).open("rb", buffering=0)).fileno()
            for sensor, file in files.items()
        }

        def take(sensor: Sensor, place: int) -> memoryview:
            size = kinds[sensor].bytes
            return memoryview(os.pread(descriptors[sensor], size, place * size))

        yield from _check_samples(group, places, chosen.tolist(), take)


def _check_samples(
    group: StoredGroup,
    places: Int64[np.ndarray, " row"],
    chosen: Iterator[int] | range | list[int],
    take: Callable[[Sensor, int], memoryview],
) -> Iterator[str]:
    rows = group.stored.manifest.take(places)
    keys, checksums = rows.column("key").to_pylist(), rows.column("xxh3_64").to_pylist()
    kinds = group.stored.kinds
    for place in chosen:
        arrays = {sensor: take(sensor, place) for sensor in kinds}
        for problem in check_arrays(kinds, checksums[place], arrays):
            yield f"{group_name(group.split)}, {keys[place]}: {problem}"

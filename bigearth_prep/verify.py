"""Every checksum, count, offset, dtype, range and label of a dataset against its card."""

import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import DatasetCard, ShardCard, read_card
from bigearth_prep.labels import CLASSES
from bigearth_prep.manifest import read_manifest
from bigearth_prep.shard_writers.webdataset import npy_header
from bigearth_prep.verify_files import VerifyConfig, check_file, check_pixels, open_bytes
from bigearth_prep.verify_zarr import StoredGroup, check_group, check_zarr_shard
from bigearth_prep.whole_file import xxh3_128_of
from bigearth_prep.zarr_group import group_name

Check = Callable[[], Iterator[str]]

_FIELDS_IN_BOTH = (
    "s1_name",
    "labels",
    "split",
    "country",
    "epsg",
    "contains_seasonal_snow",
    "contains_cloud_or_shadow",
)


def verify_dataset(
    dataset: Path, config: VerifyConfig, *, advance: Callable[[int], None]
) -> list[str]:
    """What is wrong with the dataset, a line each; empty where all is as the card says.

    Args:
        dataset: The dataset folder.
        config: How much of it is read.
        advance: Told of each finished shard, for progress; there are `shard_count`.

    Raises:
        PrepError: the card or the manifest cannot be read at all.
    """
    card, manifest = read_card(dataset), read_manifest(dataset)
    problems = list(_check_counts(card, manifest))
    problems += _check_tables(dataset, card)
    problems += _check_strangers(dataset, card)
    problems += _check_rows(card, manifest)
    groups = _groups(dataset, card, manifest)
    for group in groups:
        problems += check_group(group)
    checks = [*_tar_checks(dataset, card, manifest, config), *_zarr_checks(groups, config)]

    def run(check: Check) -> list[str]:
        found = list(check())
        advance(1)
        return found

    with ThreadPoolExecutor(config.threads) as pool:
        for found in pool.map(run, checks):
            problems += found
    return problems


def shard_count(card: DatasetCard) -> int:
    """Shards of a dataset: tars, and shards of Zarr groups."""
    return sum(
        len(part.shards) + (part.zarr.shard_count(part.samples) if part.zarr else 0)
        for part in card.splits.values()
    )


def _groups(dataset: Path, card: DatasetCard, manifest: pa.Table) -> list[StoredGroup]:
    splits = manifest.column("split")
    return [
        StoredGroup(dataset, card, split, part.zarr, manifest.filter(pc.equal(splits, split)))
        for split, part in card.splits.items()
        if part.zarr
    ]


def _zarr_checks(groups: list[StoredGroup], config: VerifyConfig) -> Iterator[Check]:
    for group in groups:
        for number in range(group.zarr.shard_count(len(group.rows))):
            yield partial(check_zarr_shard, group, number, config)


def _tar_checks(
    dataset: Path, card: DatasetCard, manifest: pa.Table, config: VerifyConfig
) -> Iterator[Check]:
    rows_of = _slices_by_shard(manifest)
    for part in card.splits.values():
        for shard in part.shards:
            rows = manifest.slice(*rows_of.get(shard.name, (0, 0)))
            yield partial(_check_tar, dataset, card, shard, rows, config)


def _check_counts(card: DatasetCard, manifest: pa.Table) -> Iterator[str]:
    if card.labels.classes != CLASSES:
        yield "dataset.json: labels.classes are not the official 19 in their order"
    keys = manifest.column("key").to_pylist()
    if len(set(keys)) != len(keys):
        yield f"manifest.parquet: {len(keys) - len(set(keys))} keys occur more than once"
    for name in sorted(set(manifest.column("shard").to_pylist()) - _places(card).keys()):
        yield f"manifest.parquet names {name}, which dataset.json does not list"
    for split, part in card.splits.items():
        total = sum(shard.samples for shard in part.shards)
        if part.shards and total != part.samples:
            yield f"dataset.json: split {split} says {part.samples} samples, its shards {total}"
        found = pc.sum(pc.equal(manifest.column("split"), split)).as_py() or 0
        if found != part.samples:
            yield f"manifest.parquet has {found} rows of {split}, dataset.json {part.samples}"


def _places(card: DatasetCard) -> dict[str, str]:
    """The split of everything that a manifest row may name as its shard."""
    places: dict[str, str] = {}
    for split, part in card.splits.items():
        names = [shard.name for shard in part.shards] or [group_name(split)]
        places |= dict.fromkeys(names, split)
    return places


def _check_tables(dataset: Path, card: DatasetCard) -> Iterator[str]:
    for name, checksum in card.tables.items():
        path = dataset / name
        if not path.is_file():
            yield f"{name} is missing"
        elif (found := xxh3_128_of(path)) != checksum:
            yield f"{name} has xxh3_128 {found}, dataset.json says {checksum}"


def _check_strangers(dataset: Path, card: DatasetCard) -> Iterator[str]:
    listed = {shard.name for part in card.splits.values() for shard in part.shards}
    for path in sorted(dataset.glob("*/*.tar*")):
        name = str(path.relative_to(dataset))
        if name not in listed:
            yield f"{name} is in no list of dataset.json"


def _check_rows(card: DatasetCard, manifest: pa.Table) -> Iterator[str]:
    """What is wrong with the manifest's rows, whatever the shards hold."""
    split_of = _places(card)
    order = {name: index for index, name in enumerate(CLASSES)}
    columns = manifest.select(["key", "split", "shard", "labels"])
    for row in columns.to_pylist():
        where, labels = f"{row['shard']}, {row['key']}", row["labels"]
        if row["split"] != split_of.get(row["shard"], row["split"]):
            yield f"{where}: manifest says split {row['split']}"
        if not labels or not set(labels) <= order.keys():
            yield f"{where}: labels {labels} are not official classes"
        elif labels != sorted(labels, key=order.__getitem__):
            yield f"{where}: labels are not in official order"


def _slices_by_shard(manifest: pa.Table) -> dict[str, tuple[int, int]]:
    """First row and number of rows of each shard; rows apart from the rest count as missing."""
    names = manifest.column("shard").to_pylist()
    slices: dict[str, tuple[int, int]] = {}
    for position, name in enumerate(names):
        start, count = slices.setdefault(name, (position, 0))
        if start + count == position:
            slices[name] = (start, count + 1)
    return slices


def _check_tar(
    dataset: Path, card: DatasetCard, shard: ShardCard, rows: pa.Table, config: VerifyConfig
) -> Iterator[str]:
    yield from check_file(dataset, shard, hashed=config.reads_all)
    if not (dataset / shard.name).is_file():
        return
    if len(rows) != shard.samples:
        yield f"{shard.name}: manifest has {len(rows)} rows, dataset.json {shard.samples} samples"
    if rows.column("index_in_shard").to_pylist() != list(range(len(rows))):
        yield f"{shard.name}: index_in_shard does not count from 0 in stored order"
    fields = rows.to_pylist()
    yield from _check_members(dataset / shard.name, shard.name, fields)
    content = open_bytes(dataset / shard.name)
    for place in config.chosen(shard.name, len(fields)):
        row = fields[place]
        where = f"{shard.name}, {row['key']}"
        pixels = {}
        for sensor in (name for name in SENSORS if name in card.sensors):
            yield from _check_header(card, where, row, sensor, content)
            start = row[f"offset_{sensor}"] or 0
            pixels[sensor] = content[start : start + card.array_bytes(sensor)]
        yield from check_pixels(card, where, row, pixels)


def _check_members(path: Path, shard: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """The tar's own names and JSON against the rows: webdataset knows no manifest."""
    try:
        with tarfile.open(path) as tar:
            texts = {
                member.name.removesuffix(".json"): json.loads(_read_member(tar, member))
                for member in tar
                if member.name.endswith(".json")
            }
    except (tarfile.TarError, ValueError) as error:
        yield f"{shard} is not a readable tar: {error}"
        return
    if list(texts) != [row["key"] for row in rows]:
        yield f"{shard}: keys of the manifest are not those in the tar, in their order"
    for row in rows:
        fields = texts.get(row["key"], {})
        for name in _FIELDS_IN_BOTH:
            if name in fields and fields[name] != row[name]:
                yield f"{shard}, {row['key']}: {name} is {row[name]}, its JSON says {fields[name]}"


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return stream.read() if stream else b""


def _check_header(
    card: DatasetCard, where: str, row: dict[str, Any], sensor: Sensor, content: np.ndarray
) -> Iterator[str]:
    """Whether the manifest's offset is where an array of the card's kind begins."""
    shape, dtype = card.array_shape(sensor), card.sensors[sensor].dtype
    header = npy_header(np.broadcast_to(np.zeros((), dtype), shape))
    start = row[f"offset_{sensor}"] or 0
    if content[max(0, start - len(header)) : start].tobytes() != header:
        yield f"{where}: no {dtype} array of {shape} begins at offset_{sensor} = {start}"

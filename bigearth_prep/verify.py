"""Every checksum, count, offset, dtype, range and label of a dataset against its card."""

import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import DatasetCard, ShardCard, read_card
from bigearth_prep.labels import CLASSES
from bigearth_prep.manifest import read_manifest
from bigearth_prep.shard_task import xxh3_128_of
from bigearth_prep.shard_writers.webdataset import npy_header

_FIELDS_IN_BOTH = (
    "s1_name",
    "labels",
    "split",
    "country",
    "epsg",
    "contains_seasonal_snow",
    "contains_cloud_or_shadow",
)


def verify_dataset(dataset: Path, *, threads: int, advance: Callable[[int], None]) -> list[str]:
    """What is wrong with the dataset, a line each; empty where all is as the card says.

    Args:
        dataset: The dataset folder.
        threads: Shards read at a time.
        advance: Told of each finished shard, for progress.

    Raises:
        PrepError: the card or the manifest cannot be read at all.
    """
    card, manifest = read_card(dataset), read_manifest(dataset)
    problems = list(_check_counts(card, manifest))
    problems += _check_tables(dataset, card)
    problems += _check_strangers(dataset, card)
    rows_of = _slices_by_shard(manifest)
    shards = [(split, shard) for split, part in card.splits.items() for shard in part.shards]

    def check(part: tuple[str, ShardCard]) -> list[str]:
        split, shard = part
        rows = manifest.slice(*rows_of.get(shard.name, (0, 0))).to_pylist()
        found = list(_check_shard(dataset, card, split, shard, rows))
        advance(1)
        return found

    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(check, shards):
            problems += found
    return problems


def _check_counts(card: DatasetCard, manifest: pa.Table) -> Iterator[str]:
    if card.labels.classes != CLASSES:
        yield "dataset.json: labels.classes are not the official 19 in their order"
    keys = manifest.column("key").to_pylist()
    if len(set(keys)) != len(keys):
        yield f"manifest.parquet: {len(keys) - len(set(keys))} keys occur more than once"
    listed = {shard.name for part in card.splits.values() for shard in part.shards}
    for name in sorted(set(manifest.column("shard").to_pylist()) - listed):
        yield f"manifest.parquet names {name}, which dataset.json does not list"
    for split, part in card.splits.items():
        total = sum(shard.samples for shard in part.shards)
        if total != part.samples:
            yield f"dataset.json: split {split} says {part.samples} samples, its shards {total}"


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


def _slices_by_shard(manifest: pa.Table) -> dict[str, tuple[int, int]]:
    """First row and number of rows of each shard; rows apart from the rest count as missing."""
    names = manifest.column("shard").to_pylist()
    slices: dict[str, tuple[int, int]] = {}
    for position, name in enumerate(names):
        start, count = slices.setdefault(name, (position, 0))
        if start + count == position:
            slices[name] = (start, count + 1)
    return slices


def _check_shard(
    dataset: Path, card: DatasetCard, split: str, shard: ShardCard, rows: list[dict[str, Any]]
) -> Iterator[str]:
    path = dataset / shard.name
    if not path.is_file():
        yield f"{shard.name} is missing"
        return
    size = path.stat().st_size
    if size != shard.bytes:
        yield f"{shard.name} is {size} bytes, dataset.json says {shard.bytes}"
    if (found := xxh3_128_of(path)) != shard.xxh3_128:
        yield f"{shard.name} has xxh3_128 {found}, dataset.json says {shard.xxh3_128}"
    if len(rows) != shard.samples:
        yield f"{shard.name}: manifest has {len(rows)} rows, dataset.json {shard.samples} samples"
    if [row["index_in_shard"] for row in rows] != list(range(len(rows))):
        yield f"{shard.name}: index_in_shard does not count from 0 in stored order"
    yield from _check_members(path, shard.name, rows)
    content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    for row in rows:
        yield from _check_sample(card, split, shard.name, row, content)


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


def _check_sample(
    card: DatasetCard, split: str, shard: str, row: dict[str, Any], content: np.ndarray
) -> Iterator[str]:
    where = f"{shard}, {row['key']}"
    if row["split"] != split:
        yield f"{where}: manifest says split {row['split']}"
    if not row["labels"] or not set(row["labels"]) <= set(CLASSES):
        yield f"{where}: labels {row['labels']} are not official classes"
    elif row["labels"] != sorted(row["labels"], key=CLASSES.index):
        yield f"{where}: labels are not in official order"
    digest = xxhash.xxh3_64()
    for sensor in SENSORS:
        if sensor in card.sensors:
            pixels, problem = _array_bytes(card, sensor, row, content)
            if problem:
                yield f"{where}: {problem}"
            digest.update(pixels.data)
    if digest.intdigest() != row["xxh3_64"]:
        yield f"{where}: stored arrays do not match xxh3_64 of the manifest"


def _array_bytes(
    card: DatasetCard, sensor: Sensor, row: dict[str, Any], content: np.ndarray
) -> tuple[np.ndarray, str | None]:
    """The array's bytes at the manifest's offset, and what is wrong with them."""
    layout, side = card.sensors[sensor], card.patch.size_px
    expected = np.empty((len(layout.bands), side, side), layout.dtype)
    header, start = npy_header(expected), row[f"offset_{sensor}"] or 0
    pixels = content[start : start + expected.nbytes]
    problem = None
    if content[max(0, start - len(header)) : start].tobytes() != header:
        problem = f"no {layout.dtype} array of {expected.shape} begins at offset_{sensor} = {start}"
    elif len(pixels) != expected.nbytes:
        problem = f"the shard ends inside the {sensor} array"
    elif not np.isfinite(pixels.view(layout.dtype)).all():
        problem = f"the {sensor} array holds values that are not finite"
    return pixels, problem

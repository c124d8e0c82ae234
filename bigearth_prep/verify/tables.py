"""The card, the manifest and the list of files against each other."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.card import DatasetCard, SensorCard
from bigearth_prep.labels import CLASSES, NOMENCLATURE
from bigearth_prep.verify.config import first_of
from bigearth_prep.verify.stored import StoredDataset
from bigearth_prep.whole_file import xxh3_128_of
from bigearth_prep.zarr_group import group_name


def check_tables(stored: StoredDataset) -> Iterator[str]:
    """What is wrong with the card and the tables, whatever the shards hold."""
    yield from _check_card(stored.card)
    yield from _check_counts(stored.card, stored.manifest)
    yield from _check_checksums(stored.folder, stored.card)
    yield from _check_strangers(stored.folder, stored.card)
    for check in (_check_splits, _check_labels):
        yield from first_of(check(stored.card, stored.manifest), "manifest.parquet")


def _check_card(card: DatasetCard) -> Iterator[str]:
    if card.labels.nomenclature == NOMENCLATURE and card.labels.classes != CLASSES:
        yield "dataset.json: labels.classes are not the official 19 in their order"
    for sensor, layout in card.sensors.items():
        if {len(layout.scale), len(layout.offset)} != {len(layout.bands)}:
            yield f"dataset.json: {sensor} has not one scale and one offset for each band"
            continue
        yield from _check_scales(card, layout)


def _check_scales(card: DatasetCard, layout: SensorCard) -> Iterator[str]:
    """Scale and offset are what the parameters of the normalization make them."""
    is_coded = card.normalization.scheme in {"paper", "percentile"}
    codes = int(np.iinfo(layout.dtype).max) if is_coded else 1
    for band, scale, offset in zip(layout.bands, layout.scale, layout.offset, strict=True):
        parameters = card.normalization.parameters.get(band)
        if parameters is None:
            yield f"dataset.json: normalization has no parameters of {band}"
            continue
        expected = ((parameters.upper - parameters.lower) / codes, parameters.lower)
        if not all(map(math.isclose, (scale, offset), expected)):
            yield f"dataset.json: {band} has scale and offset {scale, offset}, not {expected}"


def _check_counts(card: DatasetCard, manifest: pa.Table) -> Iterator[str]:
    repeated = len(manifest) - pc.count_distinct(manifest.column("key")).as_py()
    if repeated:
        yield f"manifest.parquet: {repeated} keys occur more than once"
    for name in sorted(set(pc.unique(manifest.column("shard")).to_pylist()) - _places(card).keys()):
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


def _check_checksums(folder: Path, card: DatasetCard) -> Iterator[str]:
    for name, checksum in card.tables.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif (found := xxh3_128_of(path)) != checksum:
            yield f"{name} has xxh3_128 {found}, dataset.json says {checksum}"


def _check_strangers(folder: Path, card: DatasetCard) -> Iterator[str]:
    """Tars and groups that no list has; those of groups are looked for with the group."""
    listed = {shard.name for part in card.splits.values() for shard in part.shards}
    listed |= {group_name(split) for split, part in card.splits.items() if part.zarr}
    for path in sorted([*folder.glob("*/*.tar*"), *folder.glob("*.zarr")]):
        name = str(path.relative_to(folder))
        if name not in listed:
            yield f"{name} is in no list of dataset.json"


def _check_splits(card: DatasetCard, manifest: pa.Table) -> Iterator[str]:
    places = _places(card)
    names = pa.array(list(places), pa.string())
    index = pc.index_in(manifest.column("shard"), value_set=names)
    expected = pa.array(list(places.values()), pa.string()).take(index.combine_chunks())
    differs = pc.fill_null(pc.not_equal(manifest.column("split"), expected), False)  # noqa: FBT003
    for row in manifest.select(["key", "split", "shard"]).filter(differs).to_pylist():
        yield f"{row['shard']}, {row['key']}: manifest says split {row['split']}"


def _check_labels(card: DatasetCard, manifest: pa.Table) -> Iterator[str]:
    """Labels are classes of the card, in its order; only other nomenclatures may have none."""
    lists = manifest.column("labels").combine_chunks()
    classes = pa.array(card.labels.classes, pa.string())
    row = pc.list_parent_indices(lists).to_numpy()
    code = pc.fill_null(pc.index_in(lists.flatten(), value_set=classes), -1).to_numpy()
    follows = (row[1:] == row[:-1]) & (code[1:] <= code[:-1])
    strange = set(row[code < 0].tolist())
    if card.labels.nomenclature == NOMENCLATURE:
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        strange |= set(np.flatnonzero(lengths == 0).tolist())
    wrong = dict.fromkeys(row[1:][follows].tolist(), "are not in the order of dataset.json")
    wrong |= dict.fromkeys(strange, "are not classes of dataset.json")
    for place in sorted(wrong):
        found = manifest.slice(place, 1).to_pylist()[0]
        where = f"{found['shard']}, {found['key']}"
        yield f"{where}: labels {found['labels']} {wrong[place]}"

"""Folders of a collection to a table of pairs, by the patterns of its description."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bigearth_prep.bands import Sensor
from bigearth_prep.collection import BAND_MARK, Collection, Listing, SensorFiles
from bigearth_prep.errors import PrepError
from bigearth_prep.pairs_file import LIST_MARK
from bigearth_prep.whole_file import whole_file

log = logging.getLogger(__name__)

_TIME, _BAND, _NAME = "time", "band", "name"
_MARK = re.compile(r"\{([a-z]\w*)\}")
_MARK_WITH_BRACES = re.compile(r"(\{[a-z]\w*\})")
_SHOWN = 5
_STRINGS = pa.list_(pa.field("element", pa.string()))
_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("s2", _STRINGS),
        ("s1", _STRINGS),
        ("location", pa.string()),
        ("s1_name", pa.string()),
        ("s2_time", pa.timestamp("ms", tz="UTC")),
        ("s1_time", pa.timestamp("ms", tz="UTC")),
    ]
)


@dataclass(frozen=True, slots=True)
class FoundPatch:
    """One sensor's patch: what becomes the cell of a table."""

    paths: tuple[str, ...]
    """Relative to the root."""

    fields: Mapping[str, str]
    """What stands for each `{name}` of the pattern, and the last part of the path as `name`."""

    time: datetime | None


@dataclass(frozen=True, slots=True)
class ListedPairs:
    """What was found."""

    rows: list[dict[str, Any]]
    """By key; a patch without partner has a row too."""

    pairs: int
    """Rows with a patch of every sensor."""

    alone: dict[Sensor, int] = field(default_factory=dict)
    """Rows with a patch of this sensor only."""


def list_folder(root: Path, collection: Collection) -> ListedPairs:
    """The pairs below a folder; what has no partner is logged, and has a row of its own.

    Patches belong together whose paths have the same parts where the patterns have the same names.
    Several of a sensor go with as many of the other, in order of time; where their numbers differ,
    nothing says which belong together, and none is paired.

    Raises:
        PrepError: the collection has no patterns, a time is unreadable, or two rows have one key.
    """
    listing = collection.listing
    if listing is None:
        raise PrepError(f"{collection.path} has no [listing]; write one, or the table itself")
    if not root.is_dir():
        raise PrepError(f"{root} is not a folder; give the one that holds the collection")
    found = {
        sensor: list(_find(root, pattern, collection.files[sensor], listing))
        for sensor, pattern in listing.patterns.items()
    }
    for sensor, patches in found.items():
        log.info("%s: %s patches below %s", sensor, f"{len(patches):,}", root)
    rows = [_row_of(matched, listing) for matched in _match(found, _shared_names(listing))]
    repeated = [key for key, count in Counter(row["key"] for row in rows).items() if count > 1]
    if repeated:
        raise PrepError(f"{len(repeated)} keys name several pairs, {repeated[0]} for one")
    listed = _summary(sorted(rows, key=lambda row: str(row["key"])), tuple(found))
    _log_alone(listed)
    return listed


def write_pairs(listed: ListedPairs, root: Path, out: Path) -> None:
    """Write the table, whole or not at all; CSV or Parquet by its name.

    Paths are relative to the table's folder where the root is in it, and absolute elsewhere.
    """
    folder, base = out.absolute().parent, root.absolute()
    prefix = base.relative_to(folder) if base.is_relative_to(folder) else base
    rows = [_with_prefix(row, prefix) for row in listed.rows]
    table = pa.Table.from_pylist(rows, schema=_COLUMNS)
    empty = [name for name in table.column_names if table.column(name).null_count == len(table)]
    table = table.drop_columns([name for name in empty if name != "key"])
    with whole_file(out) as partial:
        if out.suffix.lower() == ".csv":
            pa_csv.write_csv(_flat(table), partial)
        else:
            pq.write_table(table, partial, compression="zstd")


def _with_prefix(row: Mapping[str, Any], prefix: Path) -> dict[str, Any]:
    cells = {sensor: row[sensor] for sensor in ("s2", "s1") if row[sensor] is not None}
    paths = {sensor: [str(prefix / path) for path in cell] for sensor, cell in cells.items()}
    return {**row, **paths}


def _flat(table: pa.Table) -> pa.Table:
    """Lists and times as text, which is all that CSV knows."""
    for index, column in enumerate(table.columns):
        name = table.column_names[index]
        if pa.types.is_list(column.type):
            values = [cell and LIST_MARK.join(cell) for cell in column.to_pylist()]
        elif pa.types.is_timestamp(column.type):
            values = [time and f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in column.to_pylist()]
        else:
            continue
        table = table.set_column(index, name, pa.array(values, pa.string()))
    return table


def _find(root: Path, pattern: str, files: SensorFiles, listing: Listing) -> Iterator[FoundPatch]:
    bands = "|".join(map(re.escape, sorted(files.names.values(), key=len, reverse=True)))
    listed: dict[tuple[tuple[str, str], ...], dict[str, str]] = defaultdict(dict)
    for path, fields in _walk(root, "", pattern.split("/"), bands, {}):
        band = fields.pop(_BAND, "")
        name = path.rpartition("/")[2].partition(".")[0] if not band else ""
        listed[tuple({_NAME: name, **fields}.items())][band] = path
    marks = [files.names[band.name] for band in files.bands] if BAND_MARK in pattern else [""]
    for items, paths in listed.items():
        if lacking := [mark for mark in marks if mark not in paths]:
            log.warning("%s: no file of %s", next(iter(paths.values())), ", ".join(lacking))
            continue
        fields = dict(items)
        time = _parse_time(fields, listing)
        yield FoundPatch(tuple(paths[mark] for mark in marks), fields, time)


def _parse_time(fields: Mapping[str, str], listing: Listing) -> datetime | None:
    if _TIME not in fields or listing.time_format is None:
        return None
    try:
        return datetime.strptime(fields[_TIME], listing.time_format).replace(tzinfo=UTC)
    except ValueError as error:
        raise PrepError(
            f"{fields[_NAME] or fields[_TIME]}: {error}; see listing.time_format"
        ) from error


def _walk(
    folder: Path, inner: str, parts: Sequence[str], bands: str, fields: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Paths whose parts match, with what matched; folders that do not match are not entered."""
    first, *rest = parts
    known = tuple((name, fields[name]) for name in _MARK.findall(first) if name in fields)
    pattern = _regex_of(first, known, bands)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        if match := pattern.fullmatch(name):
            path = f"{inner}/{name}" if inner else name
            found = {**fields, **match.groupdict()}
            if not rest:
                yield path, found
            elif (folder / name).is_dir():
                yield from _walk(folder / name, path, rest, bands, found)


@lru_cache
def _regex_of(part: str, known: tuple[tuple[str, str], ...], bands: str) -> re.Pattern[str]:
    """What one part of a path must be, where values of some names are known from parts above."""
    value_of = dict(known)
    seen: set[str] = set()
    pieces = []
    for text in _MARK_WITH_BRACES.split(part):
        name = text[1:-1]
        if not _MARK.fullmatch(text):
            pieces.append(re.escape(text))
        elif name in value_of:
            pieces.append(re.escape(value_of[name]))
        elif name in seen:
            pieces.append(f"(?P={name})")
        else:
            pieces.append(f"(?P<{name}>{bands if name == _BAND else '.+?'})")
        seen.add(name)
    return re.compile("".join(pieces))


def _shared_names(listing: Listing) -> list[str]:
    """What must agree within a pair."""
    names = [set(_MARK.findall(pattern)) for pattern in listing.patterns.values()]
    return sorted(set.intersection(*names) - {_TIME, _BAND})


def _match(
    found: Mapping[Sensor, Sequence[FoundPatch]], shared: Sequence[str]
) -> Iterator[dict[Sensor, FoundPatch]]:
    """Patches of both sensors that belong together, and each that has no partner alone."""
    groups: dict[tuple[str, ...], dict[Sensor, list[FoundPatch]]] = defaultdict(dict)
    for sensor, patches in found.items():
        for patch in patches:
            place = tuple(patch.fields[name] for name in shared)
            groups[place].setdefault(sensor, []).append(patch)
    for group in groups.values():
        ordered = {sensor: sorted(patches, key=_order) for sensor, patches in group.items()}
        counts = {len(ordered.get(sensor, [])) for sensor in found}
        if len(counts) == 1:
            for matched in zip(*ordered.values(), strict=True):
                yield dict(zip(ordered, matched, strict=True))
        else:
            for sensor, patches in ordered.items():
                yield from ({sensor: patch} for patch in patches)


def _order(patch: FoundPatch) -> tuple[str, tuple[str, ...]]:
    return (patch.time.isoformat() if patch.time else "", patch.paths)


def _row_of(matched: Mapping[Sensor, FoundPatch], listing: Listing) -> dict[str, Any]:
    first = next(iter(matched.values()))
    optical, radar = matched.get("s2"), matched.get("s1")
    try:
        key = listing.key.format_map(first.fields)
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(sorted(first.fields))
        raise PrepError(f"listing.key {listing.key!r} needs {error}; known are {known}") from error
    return {
        "key": key,
        "s2": optical and optical.paths,
        "s1": radar and radar.paths,
        "location": first.fields.get("location"),
        "s1_name": radar and radar.fields[_NAME],
        "s2_time": optical and optical.time,
        "s1_time": radar and radar.time,
    }


def _summary(rows: list[dict[str, Any]], sensors: tuple[Sensor, ...]) -> ListedPairs:
    whole = sum(all(row[sensor] for sensor in sensors) for row in rows)
    if len(sensors) == 1:
        return ListedPairs(rows, whole)
    alone: dict[Sensor, int] = {
        sensor: sum(not any(row[other] for other in sensors if other != sensor) for row in rows)
        for sensor in sensors
    }
    return ListedPairs(rows, whole, alone)


def _log_alone(listed: ListedPairs) -> None:
    keys = (
        [row["key"] for row in listed.rows if not (row["s2"] and row["s1"])] if listed.alone else []
    )
    if keys:
        more = f" and {len(keys) - _SHOWN:,} more" if len(keys) > _SHOWN else ""
        log.warning(
            "%s patches have no partner and a row of their own: %s%s",
            f"{len(keys):,}",
            ", ".join(keys[:_SHOWN]),
            more,
        )

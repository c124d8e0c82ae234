"""A tar against the card and the manifest: every header, array, text and gap, in one reading."""

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.bands import Sensor
from bigearth_prep.card import ShardCard
from bigearth_prep.shard_writers.webdataset import TAR_BLOCK, TAR_END, npy_header, tar_header
from bigearth_prep.verify.arrays import check_arrays, check_checksum, check_size
from bigearth_prep.verify.config import VerifyConfig, first_of
from bigearth_prep.verify.hashed_file import open_hashed
from bigearth_prep.verify.stored import ArrayKind, StoredDataset

_TIMES = ("s1_time", "s2_time")
_FIELDS_IN_BOTH = (
    "key",
    "s1_name",
    "labels",
    "split",
    "country",
    "epsg",
    *_TIMES,
    "contains_seasonal_snow",
    "contains_cloud_or_shadow",
)
_OCTAL = re.compile(rb"[0-7]{11}")
_MOST_TEXT_BYTES = 1 << 20
_PLACES = ("ulx", "uly", "offset_s2", "offset_s1", "xxh3_64")

Row = dict[str, Any]
"""A manifest row, times as the sample's JSON writes them."""


def check_tar(stored: StoredDataset, shard: ShardCard, config: VerifyConfig) -> Iterator[str]:
    """What is wrong with a tar, and with the rows that place samples in it."""
    places = stored.rows_of_shard(shard.name)
    rows = stored.manifest.take(places)
    if len(rows) != shard.samples:
        yield f"{shard.name}: manifest has {len(rows)} rows, dataset.json {shard.samples} samples"
    if rows.column("index_in_shard").to_pylist() != list(range(len(rows))):
        yield f"{shard.name}: index_in_shard does not count from 0 in stored order"
    yield from check_size(stored.folder, shard)
    if not (stored.folder / shard.name).is_file():
        return
    layout = layout_of(stored.kinds)
    total = len(stored.manifest)
    if config.reads_all(total):
        yield from _check_whole(stored, shard, layout, rows)
    else:
        yield from _check_chosen(stored, shard, layout, rows.filter(config.chosen(total)[places]))


@dataclass(frozen=True, slots=True)
class ArrayMember:
    """A sensor's array in a tar; places count from the first byte of the sample."""

    sensor: Sensor
    kind: ArrayKind
    npy_header: bytes
    header_start: int
    array_start: int
    array_end: int
    end: int
    """Where the next member begins."""

    def header(self, key: str) -> bytes:
        """What precedes the array of this sample, in a tar."""
        size = len(self.npy_header) + self.kind.bytes
        return tar_header(f"{key}.{self.sensor}.npy", size) + self.npy_header


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """Where what is equally long in all samples lies: the arrays and all tar headers."""

    members: tuple[ArrayMember, ...]
    kinds: dict[Sensor, ArrayKind]
    bytes: int
    """From the first byte of the sample to the end of the tar header of its JSON."""


def layout_of(kinds: dict[Sensor, ArrayKind]) -> SampleLayout:
    """The layout of a dataset's samples in its tars."""
    members: list[ArrayMember] = []
    for sensor, kind in kinds.items():
        header = npy_header(np.broadcast_to(np.zeros((), kind.dtype), kind.shape))
        start = members[-1].end if members else 0
        first = start + TAR_BLOCK + len(header)
        end = first + kind.bytes
        members.append(ArrayMember(sensor, kind, header, start, first, end, end + -end % TAR_BLOCK))
    return SampleLayout(tuple(members), kinds, members[-1].end + TAR_BLOCK)


def _check_whole(
    stored: StoredDataset, shard: ShardCard, layout: SampleLayout, rows: pa.Table
) -> Iterator[str]:
    with open_hashed(stored.folder / shard.name) as file:

        def walk() -> Iterator[str]:
            for row in _rows_of(rows):
                start = file.position
                content = file.take(layout.bytes)
                for problem in check_sample(layout, row, start, content, file.take):
                    yield f"{shard.name}, {row['key']}: {problem}"

        yield from first_of(walk(), shard.name)
        end = bytes(file.take(len(TAR_END)))
        left, checksum = file.finish()
        if end != TAR_END or left:
            yield f"{shard.name} does not end where the last sample of the manifest does"
        yield from check_checksum(shard, checksum)


def _check_chosen(
    stored: StoredDataset, shard: ShardCard, layout: SampleLayout, rows: pa.Table
) -> Iterator[str]:
    first = layout.members[0]
    with (stored.folder / shard.name).open("rb", buffering=0) as stream:
        for row in _rows_of(rows):
            start = max(0, (row[f"offset_{first.sensor}"] or 0) - first.array_start)
            content = memoryview(os.pread(stream.fileno(), layout.bytes, start))

            def take(size: int, place: int = start + layout.bytes) -> memoryview:
                return memoryview(os.pread(stream.fileno(), size, place))

            for problem in check_sample(layout, row, start, content, take):
                yield f"{shard.name}, {row['key']}: {problem}"


def _rows_of(rows: pa.Table) -> Iterator[Row]:
    names = [*_FIELDS_IN_BOTH, *_PLACES]
    columns = [_values_of(rows.column(name)) for name in names]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _values_of(column: pa.ChunkedArray) -> list[Any]:
    """The column's values, times as text; numbers without a detour through Arrow's own."""
    if pa.types.is_timestamp(column.type):
        seconds = column.cast(pa.timestamp("s", "UTC"), safe=False)
        return _values_of(pc.strftime(seconds, format="%Y-%m-%dT%H:%M:%SZ"))
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    is_whole = is_number and column.null_count == 0
    values: list[Any] = column.to_numpy().tolist() if is_whole else column.to_pylist()
    return values


def check_sample(
    layout: SampleLayout,
    row: Row,
    start: int,
    content: memoryview,
    take: Callable[[int], memoryview],
) -> list[str]:
    """What is wrong with a sample.

    Args:
        layout: Where its members lie.
        row: Its manifest row.
        start: The byte of the tar where the sample begins.
        content: `layout.bytes` bytes from there on.
        take: Gives the bytes that follow.
    """
    problems: list[str] = []
    arrays: dict[Sensor, memoryview] = {}
    for member in layout.members:
        problems += _check_member(member, row, start, content)
        arrays[member.sensor] = content[member.array_start : member.array_end]
    problems += check_arrays(layout.kinds, row["xxh3_64"], arrays)
    header = bytes(content[layout.bytes - TAR_BLOCK :])
    size = _size_in(header)
    if size is None:
        return [*problems, f"no tar header of its JSON at byte {start + layout.bytes - TAR_BLOCK}"]
    name = f"{row['key']}.json"
    if header != tar_header(name, size):
        problems.append(_header_problem(header, name))
    text = bytes(take(size + -size % TAR_BLOCK))
    if text[size:].strip(b"\0"):
        problems.append("what follows its JSON is not zero")
    return [*problems, *_check_fields(text[:size], row)]


def _check_member(member: ArrayMember, row: Row, start: int, content: memoryview) -> list[str]:
    found = bytes(content[member.header_start : member.array_start])
    expected = member.header(row["key"])
    place = row[f"offset_{member.sensor}"]
    problems = []
    if found[:TAR_BLOCK] != expected[:TAR_BLOCK]:
        problems.append(_header_problem(found[:TAR_BLOCK], f"{row['key']}.{member.sensor}.npy"))
    if found[TAR_BLOCK:] != expected[TAR_BLOCK:]:
        kind = f"{member.kind.dtype} array of {member.kind.shape}"
        problems.append(f"no {kind} begins at offset_{member.sensor} = {place}")
    elif place != start + member.array_start:
        where = start + member.array_start
        problems.append(f"offset_{member.sensor} is {place}, the array begins at {where}")
    if bytes(content[member.array_end : member.end]).strip(b"\0"):
        problems.append(f"what follows the {member.sensor} array is not zero")
    return problems


def _size_in(header: bytes) -> int | None:
    """The size of the text that a tar header precedes; None where it cannot be one's."""
    digits = header[124:135]
    size = int(digits, 8) if _OCTAL.fullmatch(digits) else None
    return size if size is not None and size <= _MOST_TEXT_BYTES else None


def _header_problem(header: bytes, name: str) -> str:
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "strict").name
    except (tarfile.HeaderError, UnicodeDecodeError):
        return f"the tar header of {name} is damaged"
    if found == name:
        return f"the tar header of {name} is not as it was written"
    return f"the tar holds {found} where the manifest has {name}"


def _check_fields(text: bytes, row: Row) -> list[str]:
    """The sample's JSON against its row: readers of webdataset know no manifest."""
    try:
        fields = json.loads(text)
    except ValueError:
        return ["its JSON is not readable"]
    problems = [
        f"{name} is {row[name]}, its JSON says {fields.get(name)}"
        for name in _FIELDS_IN_BOTH
        if fields.get(name) != row[name]
    ]
    west, _, _, north = fields.get("bounds") or (None,) * 4
    if (west, north) != (row["ulx"], row["uly"]):
        problems.append(f"ulx, uly are {row['ulx']}, {row['uly']}, its JSON says {west}, {north}")
    return problems

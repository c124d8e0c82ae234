"""Stored samples against the files that a table of pairs names, read by rasterio alone.

Which file holds which band is told a second time here, with nothing of what builds use.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from bigearth_prep.bands import Sensor
from bigearth_prep.collection import Collection
from bigearth_prep.patch import PatchError, RejectReason
from bigearth_prep.raster import GDAL_OPTIONS
from bigearth_prep.verify.source_sample import NativeBand, SourceFinding, compare_sample
from bigearth_prep.verify.stored import StoredDataset, open_stored

_SAME_IN_BOTH = (
    "s1_name",
    "country",
    "s1_time",
    "s2_time",
    "contains_seasonal_snow",
    "contains_cloud_or_shadow",
)

Cells = Mapping[str, Any]
"""A row of the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedCheck:
    """Samples to be compared with the files of their rows."""

    folder: Path
    rows: tuple[int, ...]
    """Their places in the manifest."""

    cells: tuple[Cells | None, ...]
    """Their rows of the table, if it has them."""

    collection: Collection
    roots: Mapping[Sensor, Path]


@dataclass(frozen=True, slots=True)
class ListedPatch:
    """One sensor's files of a pair."""

    collection: Collection
    sensor: Sensor
    root: Path
    paths: Sequence[str]

    def json(self) -> dict[str, Any]:
        """Nothing: what is known stands in the table."""
        return {}

    def band(self, name: str) -> NativeBand:
        """A band's pixels, and its place where that is to be compared.

        Raises:
            PatchError: the file is missing or unreadable.
        """
        path, layer = self._file_of(name)
        try:
            with (
                warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
                rasterio.Env(**GDAL_OPTIONS),
                rasterio.open(self.root / path) as raster,
            ):
                west, south, east, north = raster.bounds
                epsg = raster.crs.to_epsg() if raster.crs else None
                in_degrees = bool(raster.crs and raster.crs.is_geographic)
                is_told = not (self.collection.trusts_grids or in_degrees)
                ground = (epsg, west, north, east, south) if is_told else None
                return NativeBand(raster.read(layer), ground)
        except RasterioError as error:
            raise PatchError(RejectReason.UNREADABLE_FILE, f"{path}: {error}") from error

    def _file_of(self, name: str) -> tuple[str, int]:
        """The path of a band's file, and which of its layers the band is."""
        files = self.collection.files[self.sensor]
        place = [band.name for band in files.bands].index(name)
        if files.kind == "stacked":
            return self.paths[0], place + 1
        wanted = (files.pattern or "").replace("{band}", files.names[name])
        if files.kind == "folder":
            return f"{self.paths[0]}/{wanted}", 1
        if files.pattern is None:
            return self.paths[place], 1
        return next(path for path in self.paths if fnmatchcase(Path(path).name, wanted)), 1


def listed_checks(
    stored: StoredDataset,
    table: pa.Table,
    collection: Collection,
    roots: Mapping[Sensor, Path],
    chosen: Sequence[Sequence[int]],
) -> Iterator[ListedCheck]:
    """A check for each group of places in the manifest."""
    number_of = {key: number for number, key in enumerate(table.column("key").to_pylist())}
    keys = stored.manifest.column("key")
    for rows in chosen:
        numbers = [number_of.get(keys[row].as_py()) for row in rows]
        cells = [None if n is None else table.slice(n, 1).to_pylist()[0] for n in numbers]
        yield ListedCheck(
            folder=stored.folder,
            rows=tuple(rows),
            cells=tuple(cells),
            collection=collection,
            roots=roots,
        )


def check_listed(check: ListedCheck) -> tuple[ListedCheck, SourceFinding]:
    """The check, and what it has shown.

    Raises:
        PrepError: a shard cannot be read.
    """
    stored = open_stored(check.folder)
    total = SourceFinding()
    rows = stored.manifest.take(check.rows).to_pylist()
    for row, cells in zip(rows, check.cells, strict=True):
        if cells is None:
            continue  # said of the table as a whole
        patches = {
            sensor: ListedPatch(check.collection, sensor, check.roots[sensor], cells[sensor])
            for sensor in stored.kinds
        }
        total += compare_sample(stored, row, patches, labels_in_json=False)
    return check, total


def check_pairs_table(stored: StoredDataset, table: pa.Table, *, own_split: bool) -> Iterator[str]:
    """Where the manifest says other than the table of pairs; nothing of columns it lacks."""
    named = [*_SAME_IN_BOTH, *(["split"] if own_split else [])]
    names = [name for name in named if name in table.column_names]
    told = ["key", *names, *(["labels"] if "labels" in table.column_names else [])]
    rows = {row["key"]: row for row in table.select(told).to_pylist()}
    classes = stored.card.labels.classes
    for found in stored.manifest.to_pylist():
        row = rows.get(found["key"])
        if row is None:
            yield f"{found['key']}: the table given with --pairs does not have it"
            continue
        labels = [name for name in classes if name in set(row.get("labels") or ())]
        if labels != found["labels"]:
            yield f"{found['key']}: labels are {found['labels']}, the table says {labels}"
        for name in names:
            said = _to_seconds(row[name])
            if said != found[name]:
                yield f"{found['key']}: {name} is {found[name]}, the table says {said}"


def _to_seconds(value: Any) -> Any:  # noqa: ANN401 (a table's values are of any kind)
    """Times as a dataset keeps them; other values as they are."""
    return value.replace(microsecond=0) if hasattr(value, "microsecond") else value

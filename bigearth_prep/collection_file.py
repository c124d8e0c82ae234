"""Descriptions of collections: TOML files, some of which come with the package.

docs/collections.md explains every field.
"""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from bigearth_prep.bands import SENSORS, Band, Sensor
from bigearth_prep.collection import (
    BAND_MARK,
    FILE_KINDS,
    LARGEST_SIDE_PX,
    SMALLEST_SIDE_PX,
    Collection,
    Listing,
    SensorFiles,
)
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import CLASSES, NOMENCLATURE

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Native types that a collection may have."""

_KEYS = {
    "": {"name", "grids", "patch", "s2", "s1", "labels", "listing"},
    "patch": {"side_px", "resolution_m"},
    "sensor": {"unit", "dtype", "files", "file_name", "missing", "bands"},
    "band": {"name", "resolution_m", "file", "missing"},
    "labels": {"nomenclature", "classes"},
    "listing": {"s2", "s1", "key", "time_format"},
}
_RESERVED_NAMES = ("BigEarthNet v1", "BigEarthNet v2")

Table = Mapping[str, Any]


class _FieldError(Exception):
    """A field is missing or wrong; the message names it."""


def open_collection(given: str) -> Collection:
    """The collection of this name, or that a TOML file at this path describes.

    Raises:
        PrepError: there is no such collection or file, or a field of it is wrong.
    """
    path = Path(given)
    if not path.is_file():
        shipped = {own.stem: own for own in shipped_collections()}
        if given not in shipped:
            names = ", ".join(shipped)
            raise PrepError(f"--collection {given} is neither a file nor one of {names}")
        path = shipped[given]
    return read_collection(path)


def shipped_collections() -> list[Path]:
    """The files that come with the package; a file's name is that of its collection."""
    folder = Path(str(files("bigearth_prep") / "collections"))
    return sorted(folder.glob("*.toml"))


def read_collection(path: Path) -> Collection:
    """The collection that a TOML file describes.

    Raises:
        PrepError: the file is unreadable, or a field of it is wrong.
    """
    try:
        return _collection_of(tomllib.loads(path.read_text(encoding="utf-8")), path)
    except (OSError, ValueError, _FieldError) as error:
        raise PrepError(f"--collection {path}: {error}; see docs/collections.md") from error


def _collection_of(table: Table, path: Path) -> Collection:
    _refuse_unknown(table, "", "the file")
    name = _get(table, "name", str, "name")
    if name in _RESERVED_NAMES:
        raise _FieldError(f"name {name!r} stands for the published archive; choose another")
    side_px, resolution_m = _patch_of(_get(table, "patch", dict, "patch"))
    grids = table.get("grids", "compared")
    if grids not in {"compared", "trusted"}:
        raise _FieldError(f"grids is {grids!r}, expected compared or trusted")
    sensor_files = {
        sensor: _sensor_files(_get(table, sensor, dict, sensor), sensor, side_px, resolution_m)
        for sensor in SENSORS
        if sensor in table
    }
    bands = tuple(band for one in sensor_files.values() for band in one.bands)
    _refuse_repeated([band.name for band in bands], "band")
    if not bands:
        raise _FieldError("neither s2 nor s1 is described")
    nomenclature, classes = _labels_of(table.get("labels", {}))
    return Collection(
        name=name,
        bands=bands,
        side_px=side_px,
        resolution_m=resolution_m,
        nomenclature=nomenclature,
        classes=classes,
        trusts_grids=grids == "trusted",
        files=sensor_files,
        listing=_listing_of(table["listing"], sensor_files) if "listing" in table else None,
        path=path,
    )


def _patch_of(table: Table) -> tuple[int, float]:
    """Side in pixels, and pitch in metres."""
    _refuse_unknown(table, "patch", "patch")
    side_px: int = _get(table, "side_px", int, "patch.side_px")
    resolution_m = float(_get(table, "resolution_m", (int, float), "patch.resolution_m"))
    if not SMALLEST_SIDE_PX <= side_px <= LARGEST_SIDE_PX or not resolution_m > 0:
        raise _FieldError(
            f"patch is {side_px} px of {resolution_m:g} m, expected {SMALLEST_SIDE_PX} to "
            f"{LARGEST_SIDE_PX} px"
        )
    return side_px, resolution_m


def _sensor_files(table: Table, sensor: Sensor, side_px: int, resolution_m: float) -> SensorFiles:
    _refuse_unknown(table, "sensor", sensor)
    kind = _get(table, "files", str, f"{sensor}.files")
    if kind not in FILE_KINDS:
        raise _FieldError(f"{sensor}.files is {kind!r}, expected {', '.join(FILE_KINDS)}")
    listed = _get(table, "bands", list, f"{sensor}.bands")
    entries = [_entry_of(entry, sensor) for entry in listed]
    ground_m = side_px * resolution_m
    bands = tuple(_band_of(entry, table, sensor, resolution_m, ground_m) for entry in entries)
    if not bands:
        raise _FieldError(f"{sensor}.bands is empty")
    if kind == "stacked" and len({band.native_px for band in bands}) > 1:
        raise _FieldError(f"{sensor} is stacked: all its bands have one resolution_m")
    pattern = table.get("file_name")
    _check_pattern(pattern, kind, sensor)
    names = {
        band.name: str(entry.get("file", band.name))
        for band, entry in zip(bands, entries, strict=True)
    }
    return SensorFiles(kind=kind, bands=bands, pattern=pattern, names=names)


def _entry_of(entry: object, sensor: Sensor) -> Table:
    if isinstance(entry, str):
        return {"name": entry}
    if not isinstance(entry, dict):
        raise _FieldError(f"{sensor}.bands holds {entry!r}, expected a name or a table")
    _refuse_unknown(entry, "band", f"{sensor}.bands")
    return entry


def _check_pattern(pattern: object, kind: str, sensor: Sensor) -> None:
    where = f"{sensor}.file_name"
    if pattern is None:
        if kind == "folder":
            raise _FieldError(
                f"{where} is missing: it names a band's file, such as {BAND_MARK}.tif"
            )
        return
    if kind == "stacked":
        raise _FieldError(f"{where} has no use: stacked files tell bands by position")
    if not isinstance(pattern, str) or BAND_MARK not in pattern or "/" in pattern:
        raise _FieldError(f"{where} is {pattern!r}, expected a file's name with {BAND_MARK} in it")
    if kind == "folder" and any(mark in pattern for mark in "*?["):
        raise _FieldError(f"{where} is {pattern!r}: in a folder, names hold no wildcards")


def _band_of(
    entry: Table, sensor_table: Table, sensor: Sensor, resolution_m: float, ground_m: float
) -> Band:
    name = _get(entry, "name", str, f"{sensor}.bands.name")
    where = f"{sensor} band {name}"
    pitch_m = float(_get(entry, "resolution_m", (int, float), where, default=resolution_m))
    native_px = ground_m / pitch_m if pitch_m > 0 else 0.5
    if abs(native_px - round(native_px)) > 1e-6 or not 1 <= round(native_px) <= LARGEST_SIDE_PX:
        raise _FieldError(
            f"{where}: {pitch_m:g} m do not divide the patch's {ground_m:g} m into 1 to "
            f"{LARGEST_SIDE_PX} px"
        )
    dtype = _get(sensor_table, "dtype", str, f"{sensor}.dtype")
    if dtype not in DTYPES:
        raise _FieldError(f"{sensor}.dtype is {dtype!r}, expected {', '.join(DTYPES)}")
    return Band(
        name=name,
        sensor=sensor,
        resolution_m=pitch_m,
        native_px=round(native_px),
        dtype=dtype,
        unit=_get(sensor_table, "unit", str, f"{sensor}.unit"),
        missing=_missing_of(entry.get("missing", sensor_table.get("missing")), dtype, where),
    )


def _missing_of(value: object, dtype: str, where: str) -> float | None:
    """`false` says that every value is a measurement; NaN is never one, and needs no saying."""
    if value is None or value is False:
        return None
    if not isinstance(value, (int, float)) or value is True:
        raise _FieldError(f"{where}: missing is {value!r}, expected a number or false")
    if np.isnan(value):
        return None
    if not np.issubdtype(dtype, np.floating) and np.array(value).astype(dtype) != value:
        raise _FieldError(f"{where}: missing is {value}, which is no {dtype}")
    return float(value)


def _labels_of(table: Table) -> tuple[str, tuple[str, ...]]:
    _refuse_unknown(table, "labels", "labels")
    classes = tuple(_get(table, "classes", list, "labels.classes", default=[]))
    nomenclature = _get(table, "nomenclature", str, "labels.nomenclature", default="")
    if not all(isinstance(name, str) and name for name in classes):
        raise _FieldError("labels.classes must be names")
    _refuse_repeated(classes, "class")
    if nomenclature == NOMENCLATURE and classes != CLASSES:
        raise _FieldError(f"labels.classes are not those of {NOMENCLATURE} in their order")
    return nomenclature, classes


def _listing_of(table: Table, sensor_files: Mapping[Sensor, SensorFiles]) -> Listing:
    _refuse_unknown(table, "listing", "listing")
    patterns = {
        sensor: _get(table, sensor, str, f"listing.{sensor}").strip("/") for sensor in sensor_files
    }
    for sensor, pattern in patterns.items():
        is_listed = sensor_files[sensor].kind == "listed"
        if is_listed != (BAND_MARK in pattern):
            raise _FieldError(
                f"listing.{sensor} is {pattern!r}: {BAND_MARK} stands in the pattern where files "
                "are listed, and only there"
            )
    return Listing(
        patterns=patterns,
        key=_get(table, "key", str, "listing.key"),
        time_format=_get(table, "time_format", str, "listing.time_format", default="") or None,
    )


def _get(
    table: Table,
    key: str,
    kind: type | tuple[type, ...],
    where: str,
    *,
    default: Any = None,  # noqa: ANN401 (TOML's values are of any kind)
) -> Any:  # noqa: ANN401
    value = table.get(key, default)
    if value is None:
        raise _FieldError(f"{where} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _FieldError(f"{where} is {value!r}, which is of another kind")
    return value


def _refuse_unknown(table: Table, kind: str, where: str) -> None:
    if not isinstance(table, dict):
        raise _FieldError(f"{where} is no table")
    if unknown := sorted(table.keys() - _KEYS[kind]):
        known = ", ".join(sorted(_KEYS[kind]))
        raise _FieldError(f"{where} holds {unknown[0]!r}; known are {known}")


def _refuse_repeated(names: "list[str] | tuple[str, ...]", what: str) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise _FieldError(f"{what} {repeated[0]!r} occurs twice")

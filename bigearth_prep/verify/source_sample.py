"""One stored sample against its patches in the archive, read by rasterio alone."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import rasterio
from jaxtyping import Shaped
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.dataset import open_dataset
from bigearth_prep.labels import to_official_classes
from bigearth_prep.patch import PatchError, RejectReason
from bigearth_prep.patch_source import PatchPlace, PatchSource, open_source
from bigearth_prep.raster import GDAL_OPTIONS, JSON_ENDING, SUFFIXES
from bigearth_prep.verify.expected import expected_band
from bigearth_prep.verify.stored import StoredDataset, open_stored

Row = dict[str, Any]

Footprint = tuple[int | None, float, float, float, float]
"""EPSG code, west, north, east and south edge."""

_SAME_EDGE = 1e-3
"""In pixels of the dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCheck:
    """Samples to be compared with their patches."""

    folder: Path
    rows: tuple[int, ...]
    """Their places in the manifest."""

    s2_places: list[PatchPlace | None]
    s1_places: list[PatchPlace | None]
    s2_root: Path
    s1_root: Path
    labels_in_json: bool
    """Labels came from the patches' JSON files, not from a table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFinding:
    """What comparing samples with their patches has shown."""

    problems: list[str] = field(default_factory=list)
    compared: int = 0
    """Samples whose every pixel was compared."""

    warped: int = 0
    """Samples with a band that was warped, whose other bands alone were compared."""

    def __add__(self, other: "SourceFinding") -> "SourceFinding":
        return SourceFinding(
            problems=self.problems + other.problems,
            compared=self.compared + other.compared,
            warped=self.warped + other.warped,
        )


@dataclass(frozen=True, slots=True)
class NativeBand:
    """A band's file as rasterio reads it."""

    pixels: Shaped[np.ndarray, "height width"]
    footprint: Footprint | None
    """None where it is not to be compared."""


@runtime_checkable
class SourcePatch(Protocol):
    """A sensor's patch where a dataset was made from."""

    def json(self) -> dict[str, Any]:
        """Its metadata; empty where none is kept beside the bands."""

    def band(self, name: str) -> NativeBand:
        """A band's pixels and place.

        Raises:
            PatchError: the file is missing or unreadable.
        """


@dataclass(frozen=True, slots=True)
class ArchivedPatch:
    """A sensor's patch in the archive."""

    source: PatchSource
    place: PatchPlace

    def file(self, ending: str) -> bytes | None:
        """The content of one of its files, if it is there."""
        content = self.source.read(self.place, (ending,)).get(ending)
        return None if content is None else bytes(content)

    def json(self) -> dict[str, Any]:
        """Its metadata; empty where the archive keeps none beside the bands."""
        content = self.file(JSON_ENDING)
        fields: dict[str, Any] = json.loads(content) if content else {}
        return fields

    def band(self, name: str) -> NativeBand:
        """A band's pixels and place.

        Raises:
            PatchError: the file is missing or unreadable.
        """
        found = (self.file(f"_{name}{suffix}") for suffix in SUFFIXES)
        content = next((content for content in found if content is not None), None)
        if content is None:
            raise PatchError(RejectReason.MISSING_BAND, f"{self.place.name}_{name}.tif")
        try:
            with rasterio.Env(**GDAL_OPTIONS), MemoryFile(content) as file, file.open() as raster:
                epsg = raster.crs.to_epsg() if raster.crs else None
                west, south, east, north = raster.bounds
                return NativeBand(raster.read(1), (epsg, west, north, east, south))
        except RasterioError as error:
            what = f"{self.place.name}_{name}: {error}"
            raise PatchError(RejectReason.UNREADABLE_FILE, what) from error


def check_source(check: SourceCheck) -> tuple[SourceCheck, SourceFinding]:
    """The check, and what it has shown.

    Raises:
        PrepError: the archive or a shard cannot be read.
    """
    stored = open_stored(check.folder)
    total = SourceFinding()
    with open_source(check.s2_root) as s2, open_source(check.s1_root) as s1:
        rows = stored.manifest.take(check.rows).to_pylist()
        for row, s2_place, s1_place in zip(rows, check.s2_places, check.s1_places, strict=True):
            if s2_place is None or s1_place is None:
                missing = row["key"] if s2_place is None else row["s1_name"]
                total += SourceFinding(problems=[f"{row['key']}: the archive lacks {missing}"])
                continue
            patches: dict[Sensor, SourcePatch] = {
                "s2": ArchivedPatch(s2, s2_place),
                "s1": ArchivedPatch(s1, s1_place),
            }
            total += compare_sample(stored, row, patches, labels_in_json=check.labels_in_json)
    return check, total


def compare_sample(
    stored: StoredDataset,
    row: Row,
    patches: Mapping[Sensor, SourcePatch],
    *,
    labels_in_json: bool,
) -> SourceFinding:
    """What differs between a sample and its patches."""
    samples = open_dataset(stored.folder, row["split"])
    total = SourceFinding()
    for sensor in stored.kinds:
        array = samples.read_array(row, sensor)
        for band, found in zip(stored.card.sensors[sensor].bands, array, strict=True):
            place = BandPlace(stored, row, sensor, band)
            total += _compare_band(place, found, patches[sensor])
    problems = [*total.problems, *_check_metadata(row, patches, labels_in_json=labels_in_json)]
    bands = sum(len(layout.bands) for layout in stored.card.sensors.values())
    return SourceFinding(
        problems=[f"{row['key']}: {problem}" for problem in problems],
        compared=int(total.compared == bands),
        warped=int(total.warped > 0),
    )


@dataclass(frozen=True, slots=True)
class BandPlace:
    """Which band of which stored sample."""

    stored: StoredDataset
    row: Row
    sensor: Sensor
    band: str

    @property
    def footprint(self) -> Footprint:
        """Where the manifest says the sample lies."""
        side_m = self.stored.card.patch.size_px * self.stored.card.patch.resolution_m
        west, north = self.row["ulx"], self.row["uly"]
        return self.row["epsg"], west, north, west + side_m, north - side_m


def _compare_band(
    place: BandPlace, found: Shaped[np.ndarray, "side side"], patch: SourcePatch
) -> SourceFinding:
    """As of a sample: whether the band was compared, or warped, and what differs."""
    card = place.stored.card
    try:
        native = patch.band(place.band)
    except PatchError as error:
        return SourceFinding(problems=[str(error)])
    if native.footprint is None or _is_same_ground(native.footprint, place):
        expected = expected_band(card, place.sensor, place.band, native.pixels)
        return SourceFinding(problems=_differences(place.band, found, expected), compared=1)
    if "warp" in card.normalization.order:
        return SourceFinding(warped=1)
    where = f"{place.band} lies on {native.footprint}, the manifest says {place.footprint}"
    return SourceFinding(problems=[where])


def _is_same_ground(footprint: Footprint, place: BandPlace) -> bool:
    room = _SAME_EDGE * place.stored.card.patch.resolution_m
    edges = zip(footprint[1:], place.footprint[1:], strict=True)
    return footprint[0] == place.footprint[0] and all(abs(a - b) <= room for a, b in edges)


def _differences(
    band: str, found: Shaped[np.ndarray, "side side"], expected: Shaped[np.ndarray, "side side"]
) -> list[str]:
    places = np.argwhere(found != expected)
    if not len(places):
        return []
    row, column = places[0].tolist()
    return [
        f"{band} differs in {len(places)} of {found.size} px, first in row {row}, column {column}: "
        f"stored {found[row, column]}, from the archive {expected[row, column]}"
    ]


def _check_metadata(
    row: Row, patches: Mapping[Sensor, SourcePatch], *, labels_in_json: bool
) -> Iterator[str]:
    """The manifest against what v1 keeps beside the bands, and the times in names."""
    optical, radar = (patches[sensor].json() if sensor in patches else {} for sensor in SENSORS)
    times = {"s2_time": optical.get("acquisition_date"), "s1_time": radar.get("acquisition_time")}
    for name, text in times.items():
        expected = text and datetime.fromisoformat(text).replace(tzinfo=UTC)
        if expected and row[name] != expected:
            yield f"{name} is {row[name]}, the archive's JSON says {text}"
    partner = radar.get("corresponding_s2_patch")
    if partner is not None and partner != row["key"]:
        yield f"{row['s1_name']} belongs to {partner} by its JSON"
    if labels_in_json:
        labels = list(to_official_classes(optical.get("labels", ())))
        if labels != row["labels"]:
            yield f"labels are {row['labels']}, the archive's JSON says {labels}"

"""What is true of every patch of a collection: bands, sizes, labels, and how its files are told.

BigEarthNet is one, known here; others are described in TOML (`collection_file`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from bigearth_prep.bands import ALL_BANDS, PATCH_M, PATCH_PX, SENSORS, Band, Sensor, bands_of
from bigearth_prep.labels import CLASSES, NOMENCLATURE

FileKind = Literal["stacked", "listed", "folder"]
"""One file of all bands; a list of files of one band each; a folder of such files."""

FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)

SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 8, 512
"""Of the patches that are stored."""

BAND_MARK = "{band}"
"""Where in a file's name the band stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorFiles:
    """How the cell of a pairs table leads to the bands of one sensor."""

    kind: FileKind
    bands: tuple[Band, ...]
    """All that the files hold, in their order."""

    pattern: str | None = None
    """A file's name, with `{band}` in it; None where the order of a list tells the bands."""

    names: Mapping[str, str] = field(default_factory=dict)
    """What stands for `{band}`, by the band's name."""

    def file_name(self, band: Band) -> str:
        """The name of a band's file, or the wildcards that it matches."""
        return (self.pattern or BAND_MARK).replace(BAND_MARK, self.names[band.name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """How the files of a collection are found and paired, by patterns of their paths.

    A pattern's `{name}` stands for any part of a path between slashes. Names that both sensors'
    patterns have must agree within a pair; `{time}` gives the order of those that then remain.
    """

    patterns: Mapping[Sensor, str]
    """Path below the root of what becomes a table's cell, by sensor."""

    key: str
    """A pair's key, from the names of its first sensor's pattern and `{name}`, the last part."""

    time_format: str | None = None
    """How `{time}` is written, as `strptime` reads it."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection of co-registered patches."""

    name: str
    bands: tuple[Band, ...]
    """All of them, Sentinel-2's slot first."""

    side_px: int
    """Side of a patch on the finest grid, in pixels."""

    resolution_m: float
    """Pitch of that grid, in metres."""

    sides_px: Sequence[int] = range(SMALLEST_SIDE_PX, LARGEST_SIDE_PX + 1)
    """Sides that a dataset of it may have."""

    nomenclature: str = ""
    classes: tuple[str, ...] = ()
    """Label names, in order; none where the collection is unlabelled."""

    trusts_grids: bool = False
    """Files are taken to cover the same ground, whatever they say of it; sizes are checked."""

    has_published_statistics: bool = False
    files: Mapping[Sensor, SensorFiles] = field(default_factory=dict)
    """By sensor; none where an archive has its own layout."""

    listing: Listing | None = None
    path: Path | None = None
    """The file that describes it."""

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """The sensors that it has bands of, in the network's order."""
        return tuple(sensor for sensor in SENSORS if bands_of(sensor, self.bands))


BIG_EARTH_NET = Collection(
    name="BigEarthNet",
    bands=ALL_BANDS,
    side_px=PATCH_PX,
    resolution_m=PATCH_M / PATCH_PX,
    sides_px=(120, 128),
    nomenclature=NOMENCLATURE,
    classes=CLASSES,
    has_published_statistics=True,
)

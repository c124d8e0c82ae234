"""A patch on its way through preparation: its rasters, and why it may be left out."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Shaped

from bigearth_prep.errors import PrepError


class RejectReason(StrEnum):
    """Why a pair is in `rejected.parquet` and not in a shard."""

    MISSING_PAIR = "missing pair"
    """A table names the pair; neither patch is in the archive."""

    MISSING_PARTNER = "missing partner"
    """One patch of the pair is in the archive, the other is not, or no table names it."""

    NOT_IN_METADATA = "not in metadata"
    """The archive holds the patch, the tables given do not name it."""

    NOT_IN_SPLIT = "filtered (not in a split)"
    """Split files were given, and none of them lists the pair."""

    SNOW = "filtered (snow)"
    CLOUD = "filtered (cloud)"
    EXCLUDED = "filtered (excluded)"
    NO_LABEL = "filtered (no label)"
    MISSING_BAND = "missing band"
    MISSING_METADATA = "missing metadata"
    """A v1 patch has no readable `_labels_metadata.json`."""

    UNREADABLE_FILE = "unreadable file"
    WRONG_SIZE = "wrong size"
    WRONG_PITCH = "wrong pitch"
    GRIDS_DIFFER = "grids differ"
    NON_FINITE = "non-finite values"
    NODATA = "nodata pixels"

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the pair, rather than left out on request."""
        return not (self.value.startswith("filtered") or self is RejectReason.NOT_IN_METADATA)


class PatchError(PrepError):
    """One pair cannot become a sample; `reason` is its row in `rejected.parquet`."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["PatchError"], tuple[RejectReason, str]]:
        """Both parts, so that the error survives the way back from a worker process."""
        return PatchError, (self.reason, self.detail)


_SAME_EDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of a raster lie: projection, upper left corner and pitch."""

    epsg: int
    ulx: float
    """Easting of the upper left corner, in metres."""

    uly: float
    """Northing of the upper left corner, in metres."""

    pitch_x_m: float
    pitch_y_m: float
    """Pixel pitch eastwards and southwards, in metres; both positive."""

    width: int
    height: int
    unit_m: float | None = 1.0
    """Metres of the unit that corner and pitch really are in; None where that is the degree."""

    @property
    def footprint(self) -> tuple[int, float, float, float, float]:
        """EPSG code, west, north, east and south edge: equal for all bands of a pair."""
        east = self.ulx + self.width * self.pitch_x_m
        south = self.uly - self.height * self.pitch_y_m
        return (self.epsg, self.ulx, self.uly, east, south)

    @property
    def bounds(self) -> list[float]:
        """West, south, east and north edge, as GeoJSON orders them."""
        _, west, north, east, south = self.footprint
        return [west, south, east, north]

    def covers_ground_of(self, other: "Grid") -> bool:
        """Whether both cover the same ground, to a thousandth of the other's pixel.

        Pitches that are no round numbers, such as degrees, put equal edges a rounding apart.
        """
        own, its = self.footprint, other.footprint
        if own == its:
            return True
        room = _SAME_EDGE * min(other.pitch_x_m, other.pitch_y_m)
        edges = zip(own[1:], its[1:], strict=True)
        return self.epsg == other.epsg and all(abs(one - two) <= room for one, two in edges)

    def __str__(self) -> str:
        return (
            f"EPSG:{self.epsg} from ({self.ulx:g}, {self.uly:g}), "
            f"{self.width} x {self.height} px of {self.pitch_x_m:g} x {self.pitch_y_m:g} m"
        )


@dataclass(frozen=True, slots=True)
class Raster:
    """One band as the archive holds it."""

    pixels: Shaped[np.ndarray, "height width"]
    """Native values, in BigEarthNet uint16 reflectance x 10^4 and float32 backscatter in dB."""

    grid: Grid | None
    """Where they lie; None where the file does not say, which only trusted grids may do."""

    nodata: float | None
    """The file's nodata tag, if it has one."""

    @property
    def ground(self) -> Grid:
        """Where the pixels lie, of a raster that was read to be compared with others."""
        assert self.grid is not None
        return self.grid

"""Bands and how a collection stores them; those of BigEarthNet in their order, said once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bigearth_prep.errors import PrepError

Sensor = Literal["s2", "s1"]
"""The optical and the radar slot, in BigEarthNet Sentinel-2 and -1, in the network's order."""

SENSORS: tuple[Sensor, ...] = get_args(Sensor)

PATCH_M = 1200
"""Side of a BigEarthNet patch, in metres."""

PATCH_PX = 120
"""Side of a BigEarthNet patch on the 10 m grid, in pixels."""

REFLECTANCE = "reflectance x 10^4"
DECIBEL = "dB"


@dataclass(frozen=True, slots=True)
class Band:
    """One band as a collection stores it."""

    name: str
    sensor: Sensor
    resolution_m: float
    """Native pixel pitch, in metres."""

    native_px: int
    """Side of the native raster of one patch, in pixels."""

    dtype: str
    """Of the native values: uint8, uint16, int16 or float32."""

    unit: str
    """Of the native values."""

    missing: float | None = None
    """Value that stands for no measurement, whatever a file's tag says; None leaves it to that."""


def _optical_band(name: str, resolution_m: int) -> Band:
    """In Sentinel-2 files 0 means missing, with a tag (v2) or without (v1)."""
    side = PATCH_M // resolution_m
    return Band(name, "s2", float(resolution_m), side, "uint16", REFLECTANCE, missing=0.0)


S2_BANDS: tuple[Band, ...] = tuple(
    _optical_band(name, resolution_m)
    for name, resolution_m in (
        ("B01", 60),
        ("B02", 10),
        ("B03", 10),
        ("B04", 10),
        ("B05", 20),
        ("B06", 20),
        ("B07", 20),
        ("B08", 10),
        ("B8A", 20),
        ("B09", 60),
        ("B11", 20),
        ("B12", 20),
    )
)
"""All Sentinel-2 L2A bands of BigEarthNet (B10 is absent), in the network's order."""

S1_BANDS: tuple[Band, ...] = tuple(
    Band(name, "s1", 10.0, PATCH_PX, "float32", DECIBEL) for name in ("VH", "VV")
)
"""Both Sentinel-1 polarizations: VH first, as the published weights expect."""

ALL_BANDS: tuple[Band, ...] = S2_BANDS + S1_BANDS


def select_bands(names: Sequence[str], held: Sequence[Band] = ALL_BANDS) -> tuple[Band, ...]:
    """The named ones of the bands that are held, in the order given.

    Raises:
        PrepError: a name is unknown or repeated.
    """
    by_name = {band.name: band for band in held}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        known = ", ".join(by_name)
        raise PrepError(f"unknown band {', '.join(unknown)}; the archive holds {known}")
    if len(set(names)) != len(names):
        raise PrepError(f"bands are repeated in {','.join(names)}; name each once")
    return tuple(by_name[name] for name in names)


def bands_of(sensor: Sensor, bands: Sequence[Band]) -> tuple[Band, ...]:
    """Those of the bands that this sensor measures, in the order given."""
    return tuple(band for band in bands if band.sensor == sensor)

"""The bands of both sensors: names, order and native pixel pitch, said once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bigearth_prep.errors import PrepError

Sensor = Literal["s2", "s1"]
"""Sentinel-2 (optical) or Sentinel-1 (radar); the network sees them in this order."""

SENSORS: tuple[Sensor, ...] = get_args(Sensor)

PATCH_M = 1200
"""Side of a BigEarthNet patch, in metres."""

PATCH_PX = 120
"""Side of a patch on the 10 m grid, in pixels."""


@dataclass(frozen=True, slots=True)
class Band:
    """One band as the archive stores it."""

    name: str
    sensor: Sensor
    resolution_m: int
    """Native pixel pitch, in metres."""

    @property
    def native_px(self) -> int:
        """Side of the native raster of one patch, in pixels."""
        return PATCH_M // self.resolution_m


S2_BANDS: tuple[Band, ...] = tuple(
    Band(name, "s2", resolution_m)
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

S1_BANDS: tuple[Band, ...] = (Band("VH", "s1", 10), Band("VV", "s1", 10))
"""Both Sentinel-1 polarizations: VH first, as the published weights expect."""

ALL_BANDS: tuple[Band, ...] = S2_BANDS + S1_BANDS

_BY_NAME = {band.name: band for band in ALL_BANDS}


def select_bands(names: Sequence[str]) -> tuple[Band, ...]:
    """The named bands, in the order given.

    Raises:
        PrepError: a name is unknown or repeated.
    """
    unknown = [name for name in names if name not in _BY_NAME]
    if unknown:
        known = ", ".join(_BY_NAME)
        raise PrepError(f"unknown band {', '.join(unknown)}; the archive holds {known}")
    if len(set(names)) != len(names):
        raise PrepError(f"bands are repeated in {','.join(names)}; name each once")
    return tuple(_BY_NAME[name] for name in names)


def bands_of(sensor: Sensor, bands: Sequence[Band]) -> tuple[Band, ...]:
    """Those of the bands that this sensor measures, in the order given."""
    return tuple(band for band in bands if band.sensor == sensor)

"""The files of one made-up patch, as bytes: TIFFs of each band and, in v1, the JSON beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from bigearth_prep.bands import PATCH_M
from bigearth_prep.synthetic.cover import LandCover, draw_land_cover
from bigearth_prep.synthetic.geotiff import PatchGrid, encode_geotiff
from bigearth_prep.synthetic.optical import View, render_optical
from bigearth_prep.synthetic.places import Place, PlannedPair
from bigearth_prep.synthetic.radar import render_radar

Layout = Literal["v1", "v2"]
"""Version of BigEarthNet whose on-disk form is followed."""

_S2_NODATA = {"v1": None, "v2": 0}

# What is drawn for a place or a pair depends on the seed, on one of these, and on its numbers.
_COVER, _OPTICAL, _RADAR = 1, 2, 3

_LEVEL3 = {
    "Urban fabric": ("Discontinuous urban fabric", "Continuous urban fabric"),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land"),
    "Permanent crops": ("Vineyards", "Olive groves", "Fruit trees and berry plantations"),
    "Natural grassland and sparsely vegetated areas": (
        "Natural grassland",
        "Sparsely vegetated areas",
    ),
    "Moors, heathland and sclerophyllous vegetation": (
        "Moors and heathland",
        "Sclerophyllous vegetation",
    ),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Inland wetlands": ("Peatbogs", "Inland marshes"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water bodies", "Water courses"),
    "Marine waters": ("Sea and ocean", "Estuaries"),
}
"""CORINE level-3 names that v1 uses for a class; those not listed keep their name."""

_N0206_SINCE = "20171023"
"""First day of the processing baseline that follows N0205."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchFiles:
    """One patch of one sensor, ready to be written."""

    files: dict[str, bytes]
    """Content by file name, sorted by name as archives are."""

    labels: tuple[str, ...]
    """The patch's classes, of the 19, in official order."""


def make_s2_patch(pair: PlannedPair, layout: Layout, seed: int) -> PatchFiles:
    """The files of the pair's Sentinel-2 half."""
    cover = _draw_cover(pair.place, seed)
    view = View(
        day_of_year=pair.scene.s2_sensing.timetuple().tm_yday,
        latitude_deg=pair.place.tile.latitude_deg,
        snow=pair.snow,
        cloud=pair.cloud,
    )
    bands = render_optical(cover, view, _generator(pair, seed, _OPTICAL))
    name = pair.v1_name if layout == "v1" else pair.v2_name
    files = _encode_bands(name, bands, pair.place.grid, nodata=_S2_NODATA[layout])
    if layout == "v1":
        files |= _encode_record(name, _s2_record(pair, cover.labels))
    return PatchFiles(files=dict(sorted(files.items())), labels=cover.labels)


def make_s1_patch(pair: PlannedPair, layout: Layout, seed: int) -> PatchFiles:
    """The files of the pair's Sentinel-1 half."""
    cover = _draw_cover(pair.place, seed)
    bands = render_radar(cover, _generator(pair, seed, _RADAR))
    files = _encode_bands(pair.s1_name, bands, pair.place.grid, nodata=None)
    if layout == "v1":
        files |= _encode_record(pair.s1_name, _s1_record(pair, cover.labels))
    return PatchFiles(files=dict(sorted(files.items())), labels=cover.labels)


def _draw_cover(place: Place, seed: int) -> LandCover:
    rng = np.random.default_rng([seed, _COVER, place.number])
    return draw_land_cover(rng, place.tile.class_percent)


def _generator(pair: PlannedPair, seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, pair.place.number, pair.visit])


def _encode_bands(
    name: str,
    bands: Mapping[str, Shaped[np.ndarray, "_ _"]],
    grid: PatchGrid,
    *,
    nodata: int | None,
) -> dict[str, bytes]:
    return {
        f"{name}_{band}.tif": encode_geotiff(pixels, grid, nodata=nodata)
        for band, pixels in bands.items()
    }


def _encode_record(name: str, record: Mapping[str, Any]) -> dict[str, bytes]:
    return {f"{name}_labels_metadata.json": json.dumps(record).encode()}


def _s2_record(pair: PlannedPair, labels: tuple[str, ...]) -> dict[str, Any]:
    scene = pair.scene
    baseline = "N0206" if scene.v1_stamp >= _N0206_SINCE else "N0205"
    tile_source = (
        f"{scene.v1_prefix.replace('MSIL2A', 'MSIL1C')}_{baseline}_R{scene.relative_orbit:03}"
        f"_T{pair.place.tile.name}_{scene.s2_sensing:%Y%m%dT%H%M%S}.SAFE"
    )
    return {
        **_place_record(pair.place, labels, lower_key="lry"),
        "tile_source": tile_source,
        "acquisition_date": f"{scene.s2_sensing:%Y-%m-%d %H:%M:%S}",
    }


def _s1_record(pair: PlannedPair, labels: tuple[str, ...]) -> dict[str, Any]:
    scene = pair.scene
    return {
        # The original Sentinel-1 files say lly where the Sentinel-2 files say lry.
        **_place_record(pair.place, labels, lower_key="lly"),
        "corresponding_s2_patch": pair.v1_name,
        "scene_source": scene.s1_product,
        "acquisition_time": f"{scene.s1_sensing:%Y-%m-%dT%H:%M:%S}",
    }


def _place_record(place: Place, labels: tuple[str, ...], *, lower_key: str) -> dict[str, Any]:
    grid = place.grid
    return {
        "labels": [_level3_name(label, place.number) for label in labels],
        "coordinates": {
            "ulx": grid.ulx,
            "uly": grid.uly,
            "lrx": grid.ulx + PATCH_M,
            lower_key: grid.uly - PATCH_M,
        },
        "projection": grid.wkt,
    }


def _level3_name(label: str, place_number: int) -> str:
    names = _LEVEL3.get(label, (label,))
    return names[place_number % len(names)]

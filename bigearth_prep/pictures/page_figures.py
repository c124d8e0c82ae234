"""The pictures of a dataset's page: histograms of its bands and a map of its patches."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio.warp
from jaxtyping import Float64, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rasterio.crs import CRS

from bigearth_prep.card import SPLITS, DatasetCard, SensorCard

SPLIT_COLOURS: Mapping[str, str] = {
    "train": "#2f6f8f",
    "validation": "#d98e32",
    "test": "#7d5ba6",
}
_SENSOR_COLOURS = {"s2": "#4a8a5b", "s1": "#6b7280"}
_BINS = 64
_COLUMNS = 4
_LON_LAT = "EPSG:4326"

Degrees = Float64[np.ndarray, " patch"]


def draw_histograms(
    card: DatasetCard, pixels: Mapping[str, Shaped[np.ndarray, "sample height width"]]
) -> Figure:
    """A panel per band: stored values along the bottom, physical values along the top.

    Args:
        card: The dataset's card.
        pixels: Stored values of each band, by its name.
    """
    rows = -(-len(card.channels) // _COLUMNS)
    figure = Figure(figsize=(11, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    panels = iter(axes)
    for sensor, layout in card.sensors.items():
        for index, band in enumerate(layout.bands):
            axis = next(panels)
            values = pixels[band].ravel()
            axis.hist(values, bins=bin_edges(values), color=_SENSOR_COLOURS[sensor])
            _label_histogram(axis, layout, index)
    for axis in panels:
        axis.set_axis_off()
    return figure


def bin_edges(values: Shaped[np.ndarray, " pixel"]) -> Float64[np.ndarray, " edge"]:
    """About 64 bins over the values; of integers, each bin covers equally many."""
    lower, upper = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        return np.linspace(lower, upper if upper > lower else lower + 1, _BINS + 1)
    step = np.ceil((upper - lower + 1) / _BINS)
    return np.arange(lower - 0.5, upper + step, step)


def _label_histogram(axis: Axes, layout: SensorCard, index: int) -> None:
    """The same axis twice: the card's linear map leads from one to the other."""
    scale, offset = layout.scale[index], layout.offset[index]
    axis.set_yticks([])
    axis.spines[["left", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)
    axis.set_ylabel(layout.bands[index], rotation=0, ha="right", weight="bold")

    def to_physical(stored: np.ndarray) -> np.ndarray:
        return stored * scale + offset

    def to_stored(physical: np.ndarray) -> np.ndarray:
        return (physical - offset) / scale

    physical = axis.secondary_xaxis("top", functions=(to_physical, to_stored))  # type: ignore[arg-type]
    physical.tick_params(labelsize=7, colors="#8a5a00")


def lon_lat(manifest: pa.Table, side_m: float) -> tuple[Degrees, Degrees]:
    """Longitude and latitude of every patch's centre; NaN where its place is not known.

    Patches of a geographic projection, whose units are degrees, are placed by their corner.
    """
    lon, lat = (np.full(len(manifest), np.nan) for _ in range(2))
    epsg = manifest.column("epsg").to_numpy()
    west, north = manifest.column("ulx").to_numpy(), manifest.column("uly").to_numpy()
    for code in pc.unique(manifest.column("epsg").drop_null()).to_pylist():
        half = 0.0 if CRS.from_epsg(code).is_geographic else side_m / 2
        own = np.flatnonzero((epsg == code) & np.isfinite(west) & np.isfinite(north))
        easting, northing = west[own] + half, north[own] - half
        found = rasterio.warp.transform(f"EPSG:{code}", _LON_LAT, easting, northing)
        lon[own], lat[own] = found
    return lon, lat


def draw_map(manifest: pa.Table, side_m: float) -> Figure:
    """Patches of this side by longitude and latitude, coloured by split."""
    lon, lat = lon_lat(manifest, side_m)
    splits = np.array(manifest.column("split").to_pylist())
    size = float(np.clip(3000 / len(manifest), 2, 20))
    figure = Figure(figsize=(8, 6), layout="constrained")
    axis = figure.subplots()
    for split in SPLITS:
        own = splits == split
        if own.any():
            colour = SPLIT_COLOURS[split]
            axis.scatter(lon[own], lat[own], s=size, color=colour, alpha=0.7, lw=0, label=split)
    middle = float(np.nanmean(lat)) if np.isfinite(lat).any() else 0.0
    axis.set_aspect(1 / np.cos(np.radians(middle)))
    axis.margins(0.1)
    axis.grid(color="#ddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)
    axis.xaxis.set_major_formatter("{x:g}\N{DEGREE SIGN}")
    axis.yaxis.set_major_formatter("{x:g}\N{DEGREE SIGN}")
    axis.set(xlabel="longitude (east)", ylabel="latitude (north)")
    axis.legend(frameon=False)
    return figure

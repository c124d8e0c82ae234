"""Files of a patch to rasters and metadata: plain strips directly, all else through rasterio."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from bigearth_prep.bands import Band
from bigearth_prep.geotiff import decode_strips
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason
from bigearth_prep.patch_source import Content, PatchPlace, PatchSource

Decoder = Literal["strips", "rasterio", "warp"]
"""How a file became a raster; by `warp`, after being decoded, it came onto another grid."""

SUFFIXES = (".tif", ".tiff")
"""Both occur; the published archives use the first."""

JSON_ENDING = "_labels_metadata.json"

GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
"""No directory listing and no side file per opened band."""


def read_bands(
    source: PatchSource, place: PatchPlace, bands: Sequence[Band], counts: Counter[Decoder]
) -> dict[Band, Raster]:
    """The rasters of one patch; their pixels may not be written to.

    Args:
        source: The archive.
        place: The patch in it.
        bands: Which bands.
        counts: Raised by one for each file, under what decoded it.

    Raises:
        PatchError: a band's file is missing, cannot be read, or is not what a band must be.
        PrepError: the archive cannot be read any more.
    """
    rasters = {}
    for band, (name, content) in _band_files(source, place, bands).items():
        rasters[band] = decode_band(content, name, band, counts)
    return rasters


def decode_band(
    content: Content, name: str, band: Band, counts: Counter[Decoder], *, needs_grid: bool = True
) -> Raster:
    """The raster in the bytes of a band's file, by the faster way where that can tell.

    Raises:
        PatchError: it cannot be read, or is not what a band must be.
    """
    raster = decode_strips(content, band)
    counts["rasterio" if raster is None else "strips"] += 1
    if raster is not None:
        return raster
    return decode_with_rasterio(content, name, band, needs_grid=needs_grid)


def _band_files(
    source: PatchSource, place: PatchPlace, bands: Sequence[Band]
) -> dict[Band, tuple[str, Content]]:
    """Name and content of each band's file."""
    files: dict[Band, tuple[str, Content]] = {}
    for suffix in SUFFIXES:
        endings = {f"_{band.name}{suffix}": band for band in bands if band not in files}
        for ending, content in source.read(place, tuple(endings)).items():
            files[endings[ending]] = (place.name + ending, content)
        if len(files) == len(bands):
            return files
    missing = next(band.name for band in bands if band not in files)
    raise PatchError(RejectReason.MISSING_BAND, f"{place.name}_{missing}.tif")


def decode_with_rasterio(
    content: Content, name: str, band: Band, *, needs_grid: bool = True
) -> Raster:
    """The raster in the bytes of any GeoTIFF of one band that GDAL reads.

    Raises:
        PatchError: it cannot be read, or is not what a band must be.
    """
    return decode_stack(content, name, (band,), (band,), needs_grid=needs_grid)[band]


def decode_stack(
    content: Content,
    name: str,
    held: Sequence[Band],
    wanted: Sequence[Band],
    *,
    needs_grid: bool = True,
) -> dict[Band, Raster]:
    """The wanted ones of the bands that a GeoTIFF holds, told by their place among them.

    Args:
        content: The file's bytes.
        name: What to call it.
        held: All its bands, in order; they are of one dtype.
        wanted: Those to be read.
        needs_grid: A file that states no grid is refused; otherwise its rasters have none.

    Raises:
        PatchError: it cannot be read, or does not hold such bands.
    """
    if not content:
        raise PatchError(RejectReason.UNREADABLE_FILE, f"{name} is empty")
    with _open_geotiff(content, name) as dataset:
        dtypes = ", ".join(dict.fromkeys(dataset.dtypes))
        if (dataset.count, dtypes) != (len(held), held[0].dtype):
            raise PatchError(
                RejectReason.UNREADABLE_FILE,
                f"{name} holds {dataset.count} band(s) of {dtypes}, "
                f"expected {len(held)} of {held[0].dtype}",
            )
        places = [held.index(band) for band in wanted]
        layers = np.asarray(dataset.read([place + 1 for place in places]))
        grid = _grid_of(dataset) if needs_grid or _states_grid(dataset) else None
        nodata = dataset.nodatavals
    return {
        band: Raster(layer, grid, nodata[place])
        for band, layer, place in zip(wanted, layers, places, strict=True)
    }


@contextmanager
def _open_geotiff(content: Content, name: str) -> Iterator[Any]:
    """The file as rasterio opens it; what goes wrong in the block is the file's fault."""
    with rasterio.Env(**GDAL_OPTIONS), MemoryFile(bytes(content), filename=name) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with file.open(driver="GTiff", sharing=False) as dataset:
                    yield dataset
        except (RasterioError, OSError, ValueError) as error:
            what = str(error).replace(file.name, name)
            raise PatchError(RejectReason.UNREADABLE_FILE, f"{name}: {what}") from error


def _states_grid(dataset: Any) -> bool:  # noqa: ANN401 (rasterio has no types)
    try:
        _grid_of(dataset)
    except ValueError:
        return False
    return True


def _grid_of(dataset: Any) -> Grid:  # noqa: ANN401 (rasterio has no types)
    transform, crs = dataset.transform, dataset.crs
    epsg = crs.to_epsg() if crs else None
    if epsg is None or transform.b or transform.d or transform.e >= 0:
        raise ValueError(f"no north-up grid in a known projection: {crs}, {transform}")
    return Grid(
        epsg=epsg,
        ulx=transform.c,
        uly=transform.f,
        pitch_x_m=transform.a,
        pitch_y_m=-transform.e,
        width=dataset.width,
        height=dataset.height,
        unit_m=crs.linear_units_factor[1] if crs.is_projected else None,
    )


def read_patch_json(source: PatchSource, place: PatchPlace) -> dict[str, Any]:
    """The v1 metadata of one patch: labels, coordinates, times.

    Raises:
        PatchError: the file is missing or not JSON.
    """
    name = place.name + JSON_ENDING
    content = source.read(place, (JSON_ENDING,)).get(JSON_ENDING)
    if content is None:
        raise PatchError(RejectReason.MISSING_METADATA, f"{name} is not there")
    try:
        fields = json.loads(bytes(content))
    except ValueError as error:
        raise PatchError(RejectReason.MISSING_METADATA, f"{name}: {error}") from error
    if not isinstance(fields, dict):
        raise PatchError(RejectReason.MISSING_METADATA, f"{name} is not a JSON object")
    return fields

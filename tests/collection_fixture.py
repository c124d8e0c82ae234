"""Small made-up collections for tests: files of real structure, TOML, and a table of pairs."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from jaxtyping import Shaped
from rasterio.errors import NotGeoreferencedWarning

from bigearth_prep.cluster import ClusterConfig
from bigearth_prep.collection_file import read_collection
from bigearth_prep.pipeline import BuildSummary, build_dataset
from bigearth_prep.plan import BuildConfig

UTM = "EPSG:32633"
OPTICAL, RADAR = ("blue", "green", "red", "nir"), ("VH", "VV")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MadeCollection:
    """A folder with files, how they are described, and which belong together."""

    folder: Path
    toml: str
    rows: list[Row] = field(default_factory=list)

    @property
    def description(self) -> Path:
        """The TOML file."""
        path = self.folder / "collection.toml"
        path.write_text(self.toml, encoding="utf-8")
        return path

    def table(self, suffix: str = ".parquet", **changes: list[object]) -> Path:
        """The table of pairs; columns of `changes` take the place of its own."""
        rows = [
            row | {name: values[number] for name, values in changes.items()}
            for number, row in enumerate(self.rows)
        ]
        path = self.folder / f"pairs{suffix}"
        if suffix == ".csv":
            path.write_text(_csv(rows), encoding="utf-8")
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
        return path


def _csv(rows: Sequence[Row]) -> str:
    lines = [",".join(rows[0])]
    for row in rows:
        cells = [";".join(cell) if isinstance(cell, list) else cell for cell in row.values()]
        lines.append(",".join("" if cell is None else str(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def write_tif(
    path: Path,
    layers: Shaped[np.ndarray, "band height width"],
    *,
    pitch_m: float = 10.0,
    corner: tuple[float, float] | None = (500_000.0, 5_300_000.0),
    **profile: object,
) -> None:
    """A GeoTIFF as rasterio writes it; without a corner it is not georeferenced."""
    place: dict[str, Any] = {}
    if corner is not None:
        transform = rasterio.Affine(pitch_m, 0, corner[0], 0, -pitch_m, corner[1])
        place = {"crs": UTM, "transform": transform}
    count, height, width = layers.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    shape: dict[str, Any] = {"count": count, "height": height, "width": width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", dtype=layers.dtype, **shape, **place, **profile
        ) as file:
            file.write(layers)


def stacked_collection(
    folder: Path,
    *,
    pairs: int = 8,
    side_px: int = 64,
    located: bool = True,
    grids: str = "compared",
) -> MadeCollection:
    """int16 optical stacks of four bands and float32 radar stacks in dB, with two classes."""
    rng = np.random.default_rng(3)
    rows: list[Row] = []
    for number in range(pairs):
        corner = (500_000.0 + 10_000 * number, 5_300_000.0) if located else None
        optical = rng.integers(-50, 3000, (4, side_px, side_px)).astype(np.int16)
        radar = rng.normal(-14, 4, (2, side_px, side_px)).astype(np.float32)
        write_tif(folder / f"optical/{number:03}.tif", optical, corner=corner, compress="deflate")
        write_tif(folder / f"radar/{number:03}.tif", radar, corner=corner)
        rows.append(
            {
                "key": f"pair_{number:03}",
                "s2": [f"optical/{number:03}.tif"],
                "s1": [f"radar/{number:03}.tif"],
                "labels": [["water"], ["forest", "water"], []][number % 3],
                "split": ("train", "train", "validation", "test")[number % 4],
                "country": "Austria" if number % 2 else None,
                "s2_time": f"2020-05-{number + 1:02}T10:00:00Z",
            }
        )
    toml = f"""
name = "Stacks"
grids = "{grids}"
[patch]
side_px = {side_px}
resolution_m = 10
[s2]
unit = "reflectance x 10^4"
dtype = "int16"
files = "stacked"
missing = -9999
bands = {json.dumps(OPTICAL)}
[s1]
unit = "dB"
dtype = "float32"
files = "stacked"
bands = {json.dumps(RADAR)}
[labels]
nomenclature = "two"
classes = ["forest", "water"]
"""
    return MadeCollection(folder=folder, toml=toml, rows=rows)


def listed_collection(folder: Path, *, pairs: int = 4, side_px: int = 64) -> MadeCollection:
    """One uint16 file per band, at 10 and 20 m, told by their names, unlabelled, one sensor."""
    rng = np.random.default_rng(4)
    rows: list[Row] = []
    for number in range(pairs):
        paths = []
        for name, side, pitch_m in (("red", side_px, 10.0), ("swir", side_px // 2, 20.0)):
            path = f"{number:03}/scene_{name}.tif"
            pixels = rng.integers(1, 5000, (1, side, side)).astype(np.uint16)
            write_tif(folder / path, pixels, pitch_m=pitch_m)
            paths.append(path)
        rows.append({"key": f"scene_{number:03}", "s2": paths[::-1]})
    toml = f"""
name = "Scenes"
[patch]
side_px = {side_px}
resolution_m = 10
[s2]
unit = "reflectance x 10^4"
dtype = "uint16"
files = "listed"
file_name = "*_{{band}}.tif"
missing = 0
bands = ["red", {{ name = "swir", resolution_m = 20 }}]
"""
    return MadeCollection(folder=folder, toml=toml, rows=rows)


def tabled_request(
    made: MadeCollection, table: Path | None = None, **changes: object
) -> BuildConfig:
    """A build of everything a table names: native values, small shards."""
    pairs = table or made.table()
    collection = read_collection(made.description)
    fields: dict[str, Any] = {
        "pairs": pairs,
        "collection": collection,
        "bands": collection.bands,
        "s2": pairs.parent,
        "s1": pairs.parent,
        "scheme": "none",
        "shard_mb": 0.1,
    }
    return BuildConfig(**(fields | changes))


def build_tabled(
    made: MadeCollection,
    out: Path,
    table: Path | None = None,
    *,
    workers: int = 0,
    **changes: object,
) -> BuildSummary:
    """Build what a table names."""
    request = tabled_request(made, table, **changes)
    return build_dataset(request, out, ClusterConfig(workers=workers))


def with_toml(made: MadeCollection, *changes: tuple[str, str]) -> MadeCollection:
    """The same files, described otherwise."""
    toml = made.toml
    for old, new in changes:
        assert old in toml
        toml = toml.replace(old, new)
    return replace(made, toml=toml)

"""A small finished dataset, made up: random smooth fields whose channel means tell their labels."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from jaxtyping import Float64

from bigearth_prep.bands import S1_BANDS, S2_BANDS, SENSORS, Sensor
from bigearth_prep.card import (
    CARD_NAME,
    MANIFEST_NAME,
    BandParameters,
    DatasetCard,
    LabelCard,
    NormalizationCard,
    PatchCard,
    Scheme,
    SensorCard,
    ShardCard,
    SplitCard,
)
from bigearth_prep.labels import CLASSES, NOMENCLATURE

BANDS: dict[Sensor, tuple[str, ...]] = {
    "s2": tuple(band.name for band in S2_BANDS),
    "s1": tuple(band.name for band in S1_BANDS),
}
MEANS: dict[Sensor, tuple[float, ...]] = {
    "s2": tuple(map(float, (340, 430, 610, 590, 950, 1800, 2080, 2220, 2270, 2260, 1600, 1010))),
    "s1": (-19.2, -12.6),
}
STDS: dict[Sensor, tuple[float, ...]] = {
    "s2": tuple(map(float, (550, 570, 580, 680, 730, 1100, 1270, 1360, 1300, 1270, 1000, 760))),
    "s1": (5.4, 5.0),
}
UNITS: dict[Sensor, str] = {"s2": "reflectance x 10000", "s1": "dB"}

MANIFEST_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("index_in_shard", pa.int32()),
        ("offset_s2", pa.int64()),
        ("offset_s1", pa.int64()),
        ("xxh3_64", pa.uint64()),
        ("s1_name", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("country", pa.string()),
        ("epsg", pa.int32()),
        ("ulx", pa.float64()),
        ("uly", pa.float64()),
        ("s1_time", pa.string()),
        ("s2_time", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)

_LABEL_SHIFT_STD = 1.0
_TEXTURE_STD = 0.3


@dataclass
class _Build:
    """What has been made so far, and how."""

    folder: Path
    size_px: int
    scheme: Scheme
    dtypes: dict[Sensor, np.dtype]
    rng: np.random.Generator
    signatures: Float64[np.ndarray, "class channel"]
    rows: list[dict[str, object]] = field(default_factory=list)


def make_dataset(
    folder: Path,
    *,
    samples: dict[str, int] | None = None,
    size_px: int = 32,
    dtype: str = "uint8",
    scheme: Scheme = "paper",
    per_shard: int = 8,
    seed: int = 0,
) -> Path:
    """The folder, now holding a dataset laid out as the real ones are.

    Args:
        folder: Where to write; made if absent.
        samples: How many per split; 24 train, 8 validation and 8 test by default.
        size_px: Side of a patch.
        dtype: Stored type of `paper` and `percentile`. `zscore` stores float32; `none` stores
            uint16 for Sentinel-2 and float32 for Sentinel-1.
        scheme: How stored values come from physical ones.
        per_shard: Samples in a shard, at most.
        seed: Seed of everything random.
    """
    rng = np.random.default_rng(seed)
    build = _Build(
        folder=folder,
        size_px=size_px,
        scheme=scheme,
        dtypes=_stored_dtypes(scheme, dtype),
        rng=rng,
        signatures=rng.normal(size=(len(CLASSES), sum(map(len, BANDS.values())))),
    )
    counts = {"train": 24, "validation": 8, "test": 8} if samples is None else samples
    splits = {name: _write_split(build, name, count, per_shard) for name, count in counts.items()}
    table = pa.Table.from_pylist(build.rows, schema=MANIFEST_SCHEMA)
    pq.write_table(table, folder / MANIFEST_NAME)
    (folder / CARD_NAME).write_text(_card(build, splits).to_json(), encoding="utf-8")
    return folder


def edit_card(dataset: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the fields of a dataset's card."""
    path = dataset / CARD_NAME
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def edit_manifest(dataset: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a dataset's manifest."""
    path = dataset / MANIFEST_NAME
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def _stored_dtypes(scheme: Scheme, dtype: str) -> dict[Sensor, np.dtype]:
    if scheme == "none":
        return {"s2": np.dtype("uint16"), "s1": np.dtype("float32")}
    name = "float32" if scheme == "zscore" else dtype
    return {sensor: np.dtype(name) for sensor in SENSORS}


def _write_split(build: _Build, name: str, count: int, per_shard: int) -> SplitCard:
    (build.folder / name).mkdir(parents=True, exist_ok=True)
    shards = tuple(
        _write_shard(build, name, number, range(first, min(first + per_shard, count)))
        for number, first in enumerate(range(0, count, per_shard))
    )
    return SplitCard(samples=count, shards=shards)


def _write_shard(build: _Build, split: str, number: int, indices: range) -> ShardCard:
    name = f"{split}/shard-{number:06}.tar"
    path = build.folder / name
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index_in_shard, index in enumerate(indices):
            row = _write_sample(build, tar, f"{split}_S2_patch_{index:04}")
            place = {"split": split, "shard": name, "index_in_shard": index_in_shard}
            build.rows.append(row | place)
    content = path.read_bytes()
    return ShardCard(
        name=name,
        samples=len(indices),
        bytes=len(content),
        xxh3_128=xxhash.xxh3_128_hexdigest(content),
    )


def _write_sample(build: _Build, tar: tarfile.TarFile, key: str) -> dict[str, object]:
    present = sorted(build.rng.choice(len(CLASSES), size=build.rng.integers(1, 4), replace=False))
    labels = [CLASSES[index] for index in present]
    deviations = _deviations(build, present)
    row: dict[str, object] = {"key": key, "s1_name": f"S1_{key}", "labels": labels}
    digest = xxhash.xxh3_64()
    first = 0
    for sensor in SENSORS:
        last = first + len(BANDS[sensor])
        stored = _stored(build, sensor, deviations[first:last])
        row[f"offset_{sensor}"] = _add_array(tar, f"{key}.{sensor}.npy", stored)
        digest.update(stored.tobytes())
        first = last
    _add_member(tar, f"{key}.json", json.dumps({"key": key, "labels": labels}).encode())
    known = {"country": "Austria", "epsg": 32633, "ulx": 3e5, "uly": 5e6}
    return row | known | {"xxh3_64": digest.intdigest()}


def _deviations(build: _Build, present: list[int]) -> Float64[np.ndarray, "channel y x"]:
    """Distance from the band means, in standard deviations: labels, a wave, and grain."""
    rng = build.rng
    means = _LABEL_SHIFT_STD * build.signatures[present].mean(axis=0)
    y, x = np.meshgrid(*[np.linspace(0, 1, build.size_px)] * 2, indexing="ij")
    rates, phase = rng.uniform(1, 3, size=2), rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * (rates[0] * y + rates[1] * x) + phase)
    grain = rng.normal(size=(len(means), build.size_px, build.size_px))
    deviations: np.ndarray = means[:, None, None] + _TEXTURE_STD * (wave + grain)
    return deviations


def _stored(
    build: _Build, sensor: Sensor, deviations: Float64[np.ndarray, "band y x"]
) -> np.ndarray:
    mean, std = (np.array(table[sensor])[:, None, None] for table in (MEANS, STDS))
    physical = mean + std * deviations
    scale, offset = (np.array(values)[:, None, None] for values in _scale_offset(build, sensor))
    codes = (physical - offset) / scale
    dtype = build.dtypes[sensor]
    if dtype.kind == "u":
        codes = np.clip(np.rint(codes), 0, np.iinfo(dtype).max)
    stored: np.ndarray = codes.astype(dtype)
    return stored


def _scale_offset(build: _Build, sensor: Sensor) -> tuple[list[float], list[float]]:
    spans = [_span(build.scheme, *pair) for pair in zip(MEANS[sensor], STDS[sensor], strict=True)]
    dtype = build.dtypes[sensor]
    coded = dtype.kind == "u" and build.scheme != "none"
    top = float(np.iinfo(dtype).max) if coded else 1.0
    return [(upper - lower) / top for lower, upper in spans], [lower for lower, _ in spans]


def _span(scheme: Scheme, mean: float, std: float) -> tuple[float, float]:
    """Physical values of the lowest and highest code, as `BandParameters` defines them."""
    if scheme == "none":
        return 0.0, 1.0
    if scheme == "zscore":
        return mean, mean + std
    return mean - 2 * std, mean + 2 * std


def _add_array(tar: tarfile.TarFile, name: str, array: np.ndarray) -> int:
    """Where the array's own bytes start in the tar."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    return _add_member(tar, name, content) + len(content) - array.nbytes


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    start = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return start


def _card(build: _Build, splits: dict[str, SplitCard]) -> DatasetCard:
    parameters: dict[str, BandParameters] = {}
    sensors: dict[Sensor, SensorCard] = {}
    for sensor in SENSORS:
        scale, offset = _scale_offset(build, sensor)
        sensors[sensor] = SensorCard(
            bands=BANDS[sensor],
            dtype=build.dtypes[sensor].name,
            unit=UNITS[sensor],
            scale=tuple(scale),
            offset=tuple(offset),
        )
        for name, mean, std in zip(BANDS[sensor], MEANS[sensor], STDS[sensor], strict=True):
            lower, upper = _span(build.scheme, mean, std)
            parameters[name] = BandParameters(mean=mean, std=std, lower=lower, upper=upper)
    return DatasetCard(
        created_by="bigearth-prep 0.1.0",
        source={"archive": "made up"},
        patch=PatchCard(size_px=build.size_px, resolution_m=10.0),
        sensors=sensors,
        normalization=NormalizationCard(
            scheme=build.scheme,
            parameters=parameters,
            source="made up",
            resampling="nearest",
            order="resample, scale, clip, round",
        ),
        labels=LabelCard(nomenclature=NOMENCLATURE, classes=CLASSES),
        splits=splits,
    )

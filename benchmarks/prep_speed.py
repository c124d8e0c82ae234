"""Patches per CPU-second from archive to finished shards, as ratios to the plain ways.

All ways read one made-up archive, a few hundred pairs with the real one's files, and take turns;
the ratios are medians over rounds. Ours is a whole build: plan, index of the tar, checksums,
manifest. Exit 1 where a ratio is below its bar.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import safetensors.numpy
import webdataset

import bigearth_prep
from bigearth_prep.bands import ALL_BANDS, S1_BANDS, S2_BANDS, Band
from bigearth_prep.card import Scheme
from bigearth_prep.cluster import ClusterConfig
from bigearth_prep.pairing import TableConfig
from bigearth_prep.pipeline import build_dataset
from bigearth_prep.plan import BuildConfig
from bigearth_prep.statistics import published_statistics
from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive

Arrays = dict[str, np.ndarray]

_SIDE = 120
_LMDB_BYTES = 1 << 34
_LMDB_BATCH = 512


@dataclass(frozen=True, slots=True)
class Way:
    """One way from archive to stored patches."""

    name: str
    run: Callable[[Path], None]
    """Writes into a new folder."""

    plain: str
    """The way that it is compared with; itself, for a plain one."""

    bar: float
    """Ratio that it must reach."""


def main() -> int:
    """Run all ways in turns and print what they reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prep-speed-") as name:
        folder = Path(name)
        ways = make_ways(folder, arguments.pairs)
        check_same_values(folder, ways)
        seconds = take_turns(folder, ways, arguments.rounds)
    ratios = {
        way.name: statistics.median(
            plain / own for plain, own in zip(seconds[way.plain], seconds[way.name], strict=True)
        )
        for way in ways
    }
    report(ways, seconds, ratios, arguments.pairs)
    return int(any(ratios[way.name] < way.bar for way in ways))


def make_ways(folder: Path, pairs: int) -> list[Way]:
    """An archive in both forms, and the ways to go through it."""
    for name, tar in (("folder", False), ("tar", True)):
        write_archive(ArchiveConfig(out=folder / name, layout="v2", pairs=pairs, seed=1, tar=tar))
    archive = folder / "folder"
    return [
        Way(
            "rasterio + TarWriter", lambda out: write_plain(archive, out), "rasterio + TarWriter", 1
        ),
        Way("ours, folder", our_way(folder / "folder", "", "paper"), "rasterio + TarWriter", 10),
        Way("ours, tar", our_way(folder / "tar", ".tar", "paper"), "rasterio + TarWriter", 12),
        Way("rasterio + LMDB", lambda out: write_lmdb(archive, out), "rasterio + LMDB", 1),
        Way("ours, folder, none", our_way(folder / "folder", "", "none"), "rasterio + LMDB", 8),
        Way("ours, tar, none", our_way(folder / "tar", ".tar", "none"), "rasterio + LMDB", 8),
    ]


def our_way(archive: Path, suffix: str, scheme: Scheme) -> Callable[[Path], None]:
    """A build in this process."""
    config = BuildConfig(
        s2=archive / f"BigEarthNet-S2{suffix}",
        s1=archive / f"BigEarthNet-S1{suffix}",
        tables=TableConfig(metadata=tuple(archive.glob("metadata*.parquet"))),
        scheme=scheme,
    )

    def build(out: Path) -> None:
        for index in archive.glob("*.index.parquet"):
            index.unlink()
        build_dataset(config, out, ClusterConfig(workers=0))

    return build


def write_plain(archive: Path, out: Path) -> None:
    """The published 8-bit form as one would write it down: open, scale, resize, TarWriter."""
    out.mkdir()
    with webdataset.TarWriter(str(out / "shard.tar")) as writer:
        for row in read_rows(archive):
            s2, s1 = read_pair(archive, row)
            writer.write(
                {
                    "__key__": row["patch_id"],
                    "s2.npy": np.stack([resize(stretch(s2[b.name], b)) for b in S2_BANDS]),
                    "s1.npy": np.stack([stretch(clip(s1[b.name]), b) for b in S1_BANDS]),
                    "json": {"labels": row["labels"], "s1_name": row["s1_name"]},
                }
            )


def write_lmdb(archive: Path, out: Path) -> None:
    """Native bands of each patch as safetensors in an LMDB, as is usual for BigEarthNet."""
    with lmdb.open(str(out), map_size=_LMDB_BYTES) as store:
        rows = read_rows(archive)
        for start in range(0, len(rows), _LMDB_BATCH):
            with store.begin(write=True) as transaction:
                for row in rows[start : start + _LMDB_BATCH]:
                    s2, s1 = read_pair(archive, row)
                    transaction.put(row["patch_id"].encode(), safetensors.numpy.save(s2))
                    transaction.put(row["s1_name"].encode(), safetensors.numpy.save(s1))


def read_rows(archive: Path) -> list[dict[str, Any]]:
    """The official tables' rows."""
    tables = [pq.read_table(path) for path in sorted(archive.glob("metadata*.parquet"))]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def read_pair(archive: Path, row: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    """Native bands of both sensors, opened one by one."""
    patch, s1_name = row["patch_id"], row["s1_name"]
    s2_folder = archive / "BigEarthNet-S2" / patch.rsplit("_", 2)[0] / patch
    s1_folder = archive / "BigEarthNet-S1" / s1_name.rsplit("_", 3)[0] / s1_name
    return read_bands(s2_folder, S2_BANDS), read_bands(s1_folder, S1_BANDS)


def read_bands(folder: Path, bands: tuple[Band, ...]) -> Arrays:
    """Pixels by band name."""
    arrays = {}
    for band in bands:
        with rasterio.open(folder / f"{folder.name}_{band.name}.tif") as source:
            arrays[band.name] = source.read(1)
    return arrays


def clip(pixels: np.ndarray) -> np.ndarray:
    """Radar between its own 1st and 99th percentile."""
    lower, upper = np.percentile(pixels, (1, 99)).astype(np.float32)
    clipped: np.ndarray = np.clip(pixels, lower, upper)
    return clipped


def stretch(pixels: np.ndarray, band: Band) -> np.ndarray:
    """Mean - 2 std ... mean + 2 std to bytes, cut off."""
    moments = published_statistics("dino-mm").bands[band.name]
    low, high = moments.mean - 2 * moments.std, moments.mean + 2 * moments.std
    return np.clip((pixels - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def resize(pixels: np.ndarray) -> np.ndarray:
    """On the 10 m grid, cubic."""
    return cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)


def check_same_values(folder: Path, ways: list[Way]) -> None:
    """Whether the plain way and ours store the same: otherwise they may not be compared."""
    write_plain(folder / "folder", folder / "check")
    ways[1].run(folder / "ours")
    samples = {
        sample["key"]: sample
        for split in ("train", "validation", "test")
        for sample in bigearth_prep.open_dataset(folder / "ours", split)  # type: ignore[attr-defined]
    }
    stored = webdataset.WebDataset(str(folder / "check" / "shard.tar"), shardshuffle=False).decode()
    for plain in stored:
        sample = samples.pop(plain["__key__"])
        for sensor in ("s2", "s1"):
            difference = np.abs(sample[sensor].astype(int) - plain[f"{sensor}.npy"]).max()
            assert difference <= 1, (plain["__key__"], sensor, difference)
    assert not samples


def take_turns(folder: Path, ways: list[Way], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of each way in each round."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            out = folder / "out"
            start = time.process_time()
            way.run(out)
            seconds[way.name].append(time.process_time() - start)
            shutil.rmtree(out)
    return seconds


def report(
    ways: list[Way], seconds: dict[str, list[float]], ratios: dict[str, float], pairs: int
) -> None:
    """A table for people and a line of JSON for scripts."""
    print(f"{pairs} pairs, {len(ALL_BANDS)} bands, {len(seconds[ways[0].name])} rounds")
    print(f"{'way':24}{'pairs/CPU-s':>12}{'ratio':>8}{'bar':>6}")
    rates = {way.name: pairs / statistics.median(seconds[way.name]) for way in ways}
    for way in ways:
        bar = f"{way.bar:g}" if way.name != way.plain else ""
        print(f"{way.name:24}{rates[way.name]:12,.0f}{ratios[way.name]:8.1f}{bar:>6}")
    bars = {way.name: way.bar for way in ways}
    print(json.dumps({"benchmark": "prep_speed", "rates": rates, "ratios": ratios, "bars": bars}))


if __name__ == "__main__":
    sys.exit(main())

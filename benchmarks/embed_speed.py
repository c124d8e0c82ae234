"""How fast features get into a file, so that a GPU which makes them need not wait.

Features of ViT-S under three sensor sets, in the batches that `embed` takes from the network, are
written by its own writers, and as a plain script would: each batch as a table, by pyarrow's
defaults. The ratio is the median over rounds of CPU-seconds. Exit 1 where it is below the bar.

What else `embed` does on the host is reading, which `reader_speed.py` measures. An H200 that met
half of its measured matmul ceiling would encode about 14,000 patches a second three times over
(ViT-S/8 at 112 px: 9.3 GFLOP each time; 790 TFLOP/s).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinomm_train.evaluation.config import SENSOR_SETS, ExtractionConfig
from dinomm_train.evaluation.embedding_files import EmbeddedBatch, write_parquet, write_zarr

_WIDTH, _BAR = 384, 3.0
_BATCH = ExtractionConfig().batch_size
_OURS, _ZARR, _PLAIN = "embed, Parquet", "embed, Zarr", "a plain script"


def main() -> int:
    """Run all in turns and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    features = np.random.default_rng(0).standard_normal(
        (arguments.patches, _WIDTH), dtype=np.float32
    )
    rates: dict[str, list[float]] = {_OURS: [], _ZARR: [], _PLAIN: []}
    with tempfile.TemporaryDirectory(prefix="embed-speed-") as name:
        ours, theirs = Path(name, "ours.parquet"), Path(name, "theirs.parquet")
        work: dict[str, Callable[[], object]] = {
            _OURS: lambda: write_parquet(batches_of(features), ours, {}, _WIDTH),
            _ZARR: lambda: write_zarr(batches_of(features), Path(name, "ours.zarr"), {}, _WIDTH),
            _PLAIN: lambda: write_plainly(batches_of(features), theirs),
        }
        for _ in range(arguments.rounds):
            for what, write in work.items():
                start_s = time.process_time()
                write()
                rates[what].append(arguments.patches / (time.process_time() - start_s))
        require_same(ours, theirs)
        sizes = [path.stat().st_size for path in (ours, theirs)]
    return report(rates, sizes)


def batches_of(features: np.ndarray) -> Iterator[EmbeddedBatch]:
    """The same features under every sensor set, as batches of patches."""
    for start in range(0, len(features), _BATCH):
        rows = features[start : start + _BATCH]
        keys = tuple(
            f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{start + row:06}"
            for row in range(len(rows))
        )
        yield EmbeddedBatch(split="train", keys=keys, features=dict.fromkeys(SENSOR_SETS, rows))


def write_plainly(batches: Iterable[EmbeddedBatch], path: Path) -> None:
    """Each batch as a table of its own, pyarrow deciding the rest."""
    types = {"key": pa.string(), "split": pa.string(), "sensors": pa.string()}
    schema = pa.schema([*types.items(), ("features", pa.list_(pa.float32(), _WIDTH))])
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            for sensors, rows in batch.features.items():
                columns = {
                    "key": list(batch.keys),
                    "split": [batch.split] * len(rows),
                    "sensors": [sensors] * len(rows),
                    "features": pa.FixedSizeListArray.from_arrays(rows.ravel(), _WIDTH),
                }
                writer.write_table(pa.table(columns, schema=schema))


def require_same(ours: Path, theirs: Path) -> None:
    """Refuse to compare files that hold different rows."""
    by_row = [("key", "ascending"), ("sensors", "ascending")]
    first, second = (
        pq.read_table(path).replace_schema_metadata(None).sort_by(by_row) for path in (ours, theirs)
    )
    if not first.equals(second):
        raise SystemExit("embed and the plain script wrote different rows")


def report(rates: dict[str, list[float]], sizes: list[int]) -> int:
    """Print rates and the ratio; 1 where it is below the bar."""
    for what, found in rates.items():
        print(f"{what}: {statistics.median(found):,.0f} patches per CPU-second")
    pairs = zip(rates[_OURS], rates[_PLAIN], strict=True)
    ratio = statistics.median(mine / other for mine, other in pairs)
    print(
        f"embed: {ratio:.1f} times a plain script, at least {_BAR}; "
        f"{sizes[0] / sizes[1]:.2f} of its bytes"
    )
    return int(ratio < _BAR)


if __name__ == "__main__":
    sys.exit(main())

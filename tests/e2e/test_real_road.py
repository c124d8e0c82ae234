"""The two commands on real patches: shards, steps with a finite loss, features of both sensors."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

REAL = Path(__file__).parents[3] / "shared" / "real"

SMALL_NETWORK = (
    "model.name=vit_tiny_patch16_224",
    "model.depth=1",
    "head.prototypes=64",
    "views.crops.local_count=2",
    "sampling.global_batch=4",
    "schedule.epochs=2",
    "schedule.warmup_epochs=0",
    "output.log_every_steps=1",
)


def run(package: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", package, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not REAL.exists(), reason="real patches are not at hand")
@pytest.mark.parametrize("scheme", ["paper", pytest.param("none", marks=pytest.mark.slow)])
def test_pretraining_takes_steps_on_real_shards(tmp_path: Path, scheme: str) -> None:
    roots = [REAL / "v1" / "BigEarthNet-v1.0", REAL / "v1" / "BigEarthNet-S1-v1.0"]
    arguments: list[str | Path] = [
        "--s2",
        roots[0],
        "--s1",
        roots[1],
        "--normalize",
        scheme,
        "--split-ratio",
        "1,0,0",
    ]
    run(
        "bigearth_prep", "build-shards", *arguments, "--out", tmp_path / "dataset", "--workers", "0"
    )
    settings = [part for value in SMALL_NETWORK for part in ("--set", value)]
    run("dinomm_train", "pretrain", tmp_path / "dataset", "--out", tmp_path / "run", *settings)
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row["loss"]) for row in rows)
    features = tmp_path / "features.parquet"
    run("dinomm_train", "embed", tmp_path / "run", tmp_path / "dataset", "--out", features)
    assert features.stat().st_size > 0

"""What limits a machine, and what would stop a run."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dinomm_train.config import (
    ComputeConfig,
    CropConfig,
    HeadConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    ViewConfig,
)
from dinomm_train.data.index import StoredDataset
from dinomm_train.doctor.checks import Check
from dinomm_train.doctor.examine import Diagnosis, ExamineConfig, Rates, examine
from dinomm_train.doctor.rates import matmul_flops_per_s, repeated_rate
from dinomm_train.doctor.table import print_diagnosis
from tests.shard_fixture import make_dataset

TINY = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=1, width=24, heads=2),
    head=HeadConfig(hidden=32, bottleneck=16, prototypes=64),
    views=ViewConfig(crops=CropConfig(global_px=24, local_px=16, local_count=1)),
    sampling=SamplingConfig(global_batch=8),
)
QUICK = ExamineConfig(device="cpu", seconds=0.02)
RATES = Rates(disk=50.0, reader=500.0, views=300.0, step=150.0, matmul_tflops=8.0, step_tflops=2.0)
GOOD = (Check(name="some", is_good=True, finding="fine"),)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(make_dataset(tmp_path_factory.mktemp("dataset")))


def test_every_part_is_measured_and_every_check_made(
    dataset: StoredDataset, tmp_path: Path
) -> None:
    found = examine(dataset, TINY, replace(QUICK, out=tmp_path / "not/yet/there"))
    assert found.is_healthy
    assert [check.name for check in found.checks] == [
        "device",
        "shards",
        "batches",
        "cache",
        "checkpoints",
    ]
    assert found.rates is not None
    assert all(rate > 0 for rate in (found.rates.disk, found.rates.reader, found.rates.views))
    assert 0 < found.rates.mfu < 1
    assert found.batch == 8
    assert found.limit in {"disk", "reader", "views", "step"}
    said = str(found.to_dict())
    assert "mfu" in said
    assert found.limit in said


@pytest.mark.parametrize(
    ("change", "fits", "limit"),
    [
        ({}, False, "disk"),
        ({}, True, "step"),
        ({"reader": 60.0}, True, "reader"),
        ({"views": 100.0, "step": 900.0}, True, "views"),
        # 300 and 150 one after the other are 100.
        ({"disk": 99.0}, False, "disk"),
        ({"disk": 101.0}, False, "step"),
    ],
)
def test_the_slowest_part_is_the_limit(change: dict[str, float], fits: bool, limit: str) -> None:  # noqa: FBT001
    found = Diagnosis(checks=GOOD, rates=replace(RATES, **change), fits_in_memory=fits)
    assert found.limit == limit


def test_the_table_names_limit_and_share_of_the_ceiling() -> None:
    screen = io.StringIO()
    found = Diagnosis(checks=GOOD, rates=RATES, batch=8, fits_in_memory=True)
    print_diagnosis(found, Console(file=screen, width=200))
    said = screen.getvalue()
    assert "MFU 25.0%" in said
    assert "about 100.0 samples/s; its limit is the step" in said


def test_a_damaged_shard_is_found_and_nothing_measured(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, size_px=24)
    dataset = StoredDataset.open(made)
    split = dataset.split("train")
    content = bytearray(split.shard_paths[1].read_bytes())
    content[int(split.arrays["s1"].offsets[15])] ^= 1
    split.shard_paths[1].write_bytes(content)
    found = examine(dataset, TINY, QUICK)
    assert not found.is_healthy
    assert found.rates is None
    bad = [check for check in found.checks if not check.is_good]
    assert [check.name for check in bad] == ["shards"]
    assert split.key(15) in bad[0].finding


def test_ranks_that_cannot_share_a_step_are_found(dataset: StoredDataset) -> None:
    found = examine(dataset, TINY, replace(QUICK, ranks=3))
    bad = [check for check in found.checks if not check.is_good]
    assert [check.name for check in bad] == ["batches"]
    assert "8 cannot be shared evenly by 3" in bad[0].finding


def test_sharing_out_the_networks_needs_several_ranks_and_is_measured_by_one(
    dataset: StoredDataset,
) -> None:
    sharing = replace(TINY, compute=ComputeConfig(sharding="fsdp"))
    (bad,) = (one for one in examine(dataset, sharing, QUICK).checks if not one.is_good)
    assert "compute.sharding 'fsdp' shares the networks out over several" in bad.finding
    assert examine(dataset, sharing, replace(QUICK, ranks=2)).is_healthy


def test_a_disk_too_small_for_the_checkpoints_is_found(
    dataset: StoredDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    found = examine(dataset, TINY, replace(QUICK, out=tmp_path))
    assert [check.name for check in found.checks if not check.is_good] == ["checkpoints"]


def test_rates_count_what_was_done() -> None:
    done: list[int] = []
    cpu = torch.device("cpu")
    rate = repeated_rate(lambda: done.append(1), units=3.0, seconds=0.05, device=cpu)
    # The first time does not count.
    assert rate <= (len(done) - 1) * 3 / 0.05
    assert matmul_flops_per_s(cpu, torch.float32, 0.01) > 1e6

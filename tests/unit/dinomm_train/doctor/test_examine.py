"""What is measured of a machine, and what would stop a run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dinomm_train.config import (
    ComputeConfig,
    CropConfig,
    HeadConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
    ViewConfig,
)
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.loader import ReadOptions
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks
from dinomm_train.doctor import examine as examine_module
from dinomm_train.doctor.checks import check_checkpoints
from dinomm_train.doctor.diagnosis import Rates
from dinomm_train.doctor.examine import ExamineConfig, examine, node_batches
from dinomm_train.doctor.rates import repeated_rate
from dinomm_train.flops import training_flops_per_image
from dinomm_train.learner import Learner, StepReport
from dinomm_train.schedules import StepValues
from tests.shard_fixture import make_dataset

TINY = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=1, width=24, heads=2),
    head=HeadConfig(hidden=32, bottleneck=16, prototypes=64),
    views=ViewConfig(crops=CropConfig(global_px=24, local_px=16, local_count=1)),
    sampling=SamplingConfig(global_batch=8),
)
STEPS = 8
"""Of an epoch."""
QUICK = ExamineConfig(device="cpu", seconds=0.02)


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
        "views",
        "batches",
        "cache",
        "checkpoints",
    ]
    assert found.rates is not None
    assert all(rate > 0 for rate in (found.rates.disk, found.rates.reader, found.rates.views))
    assert 0 < found.rates.mfu < 1
    told = training_flops_per_image(TINY, channels=14)
    assert found.rates.step_tflops == pytest.approx(found.rates.step * told / 1e12)
    assert found.batch == 8
    assert found.limit in {"disk", "reader", "views", "step"}
    said = str(found.to_dict())
    assert "mfu" in said
    assert found.limit in said


@pytest.mark.parametrize(("frozen", "is_frozen"), [(1, False), (3, False), (100, True)])
def test_a_step_is_measured_that_moves_the_prototypes_if_any_does(
    dataset: StoredDataset, monkeypatch: pytest.MonkeyPatch, *, frozen: int, is_frozen: bool
) -> None:
    values: list[StepValues] = []

    class Recording(Learner):
        def step(self, views: Views, given: StepValues, step: int) -> StepReport:
            values.append(given)
            return super().step(views, given, step)

    monkeypatch.setattr(examine_module, "Learner", Recording)
    config = replace(TINY, optim=OptimConfig(frozen_last_layer_epochs=frozen))
    examine(dataset, config, QUICK)
    assert {(one.epoch, one.last_layer_frozen) for one in values} == {(min(frozen, 99), is_frozen)}


def test_mfu_is_a_share_of_the_peak_that_is_configured(dataset: StoredDataset) -> None:
    found = examine(dataset, replace(TINY, output=OutputConfig(peak_tflops=7.0)), QUICK)
    assert found.rates is not None
    assert found.rates.peak_tflops == 7.0


@pytest.mark.parametrize(("nodes", "share", "threads"), [(1, 8, 12), (2, 4, 6), (4, 2, 3)])
def test_the_stream_is_what_all_ranks_of_a_node_read_together(
    dataset: StoredDataset, nodes: int, share: int, threads: int
) -> None:
    split = dataset.split("train")
    wanted = replace(QUICK, ranks=4, nodes=nodes, reading=ReadOptions(threads=3))
    order = SampleOrder.of(split, TINY.sampling)
    batches = node_batches(split, order, wanted, torch.device("cpu"))
    assert (batches.share_size, batches._options.threads) == (share, threads)


def test_a_rank_s_share_is_measured_and_all_ranks_are_told(dataset: StoredDataset) -> None:
    found = examine(dataset, TINY, replace(QUICK, ranks=4, nodes=2))
    assert (found.batch, found.ranks) == (2, 4)
    assert "each of the 2 ranks of this node shares its disk and cores" in found.assumed
    assert "shares its processors; all 2 nodes are like this one" in found.assumed


def test_what_is_measured_of_a_machine_is_shared_by_its_ranks(
    dataset: StoredDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Rates(disk=8.0, reader=8.0, views=8.0, step=8.0, peak_tflops=2.0, step_tflops=1.0)
    monkeypatch.setattr(examine_module, "_measure", lambda *_: machine)
    found = examine(dataset, TINY, replace(QUICK, ranks=4, nodes=2))
    assert found.rates == machine.shared_by(2, has_own_device=False)


def test_ranks_that_machines_cannot_share_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="6 processes cannot be shared evenly by 4 machines"):
        ExamineConfig(ranks=6, nodes=4)


@pytest.mark.parametrize("fits", [True, False])
def test_an_epoch_fits_into_what_memory_is_available(
    dataset: StoredDataset,
    monkeypatch: pytest.MonkeyPatch,
    fits: bool,  # noqa: FBT001 (a case)
) -> None:
    arrays = dataset.split("train").arrays.values()
    epoch_bytes = len(dataset.split("train")) * sum(stored.sample_bytes for stored in arrays)
    monkeypatch.setattr(examine_module, "available_memory_bytes", lambda: epoch_bytes + fits)
    assert examine(dataset, TINY, QUICK).fits_in_memory is fits


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


def test_a_step_that_a_gpu_does_not_hold_is_a_bad_check(
    dataset: StoredDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Greedy(Learner):
        def step(self, *_: object) -> StepReport:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(examine_module, "Learner", Greedy)
    found = examine(dataset, TINY, QUICK)
    assert found.rates is None
    (bad,) = (check for check in found.checks if not check.is_good)
    assert bad.name == "memory"
    assert "a step of 8 samples do not fit" in bad.finding
    assert "compute.micro_batch" in bad.finding
    shared = replace(TINY, compute=ComputeConfig(sharding="fsdp"))
    found = examine(dataset, shared, replace(QUICK, ranks=2))
    assert found.is_healthy, "which ranks that share them out may well hold"
    assert "share the networks out" in found.checks[-1].finding


def test_crops_that_training_refuses_to_make_are_found(tmp_path: Path) -> None:
    standardized = StoredDataset.open(make_dataset(tmp_path, scheme="zscore"))
    published = replace(TINY, views=replace(TINY.views, chain="published"))
    found = examine(standardized, published, QUICK)
    (bad,) = (check for check in found.checks if not check.is_good)
    assert bad.name == "views"
    assert "this dataset is standardized" in bad.finding


def test_one_rank_on_each_node_shares_with_nobody(dataset: StoredDataset) -> None:
    found = examine(dataset, TINY, replace(QUICK, ranks=2, nodes=2))
    assert found.assumed == "all 2 nodes are like this one, and none slows another down"


@pytest.mark.parametrize(
    ("output", "count"),
    [
        (OutputConfig(), 4),
        (OutputConfig(keep_last=1), 2),
        (OutputConfig(keep_last=30), 20),
        (OutputConfig(checkpoint_every_steps=10_000), 1),
        (OutputConfig(checkpoint_every_steps=20 * STEPS - 1), 2),
        # 20 epochs of so many steps; all but the newest three stay, or every fifth of these 17.
        (OutputConfig(keep_every_steps=1), 4 + 17),
        (OutputConfig(keep_every_steps=5 * STEPS), 4 + 3),
        # Saved 40 times, twice an epoch; every third epoch's end stays.
        (OutputConfig(checkpoint_every_steps=STEPS // 2, keep_every_steps=3 * STEPS), 4 + 6),
        # Kept at multiples of four steps, saved at multiples of six: both at those of twelve.
        (
            OutputConfig(checkpoint_every_steps=6, keep_every_steps=4),
            4 + (20 * STEPS // 6 - 3) // 2,
        ),
    ],
)
def test_the_disk_must_hold_all_checkpoints_that_stay(
    tmp_path: Path, output: OutputConfig, count: int
) -> None:
    config = replace(TINY, schedule=ScheduleConfig(epochs=20), output=output)
    learner = Learner(config, Ranks(rank=0, world=1, device=torch.device("cpu")), channels=14)
    found = check_checkpoints(learner, STEPS, tmp_path)
    assert found.finding.startswith(f"{count} checkpoints of")


def test_rates_count_what_was_done() -> None:
    done: list[int] = []
    cpu = torch.device("cpu")
    rate = repeated_rate(lambda: done.append(1), units=3.0, seconds=0.05, device=cpu)
    # The first time does not count.
    assert rate <= (len(done) - 1) * 3 / 0.05

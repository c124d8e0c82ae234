"""Ranks that share out the networks learn what one process learns, and leave the same files."""

import gc
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.checkpoint_writer import HostCopies
from dinomm_train.config import ComputeConfig, CropConfig, HealthConfig, RunConfig
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks, join_ranks
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner
from dinomm_train.metrics import read_health, read_metrics
from dinomm_train.pretrained import read_frozen_backbone
from dinomm_train.replay import replay
from dinomm_train.schedules import StepValues
from tests.integration.test_trainer import (
    TINY,
    run_here,
    start_ranks,
    tensors_of,
    told,
    wait_for_metrics,
)
from tests.run_processes import Forks, Process, places
from tests.shard_fixture import make_dataset

SHARED_OUT = ComputeConfig(sharding="fsdp")
SMALL = replace(
    TINY,
    model=replace(TINY.model, depth=3, drop_path=0.5),
    views=replace(TINY.views, crops=CropConfig(global_px=16, local_px=8, local_count=2)),
)
VALUES = StepValues(
    epoch=0,
    lr=0.001,
    weight_decay=0.1,
    teacher_momentum=0.9,
    teacher_temperature=0.04,
    last_layer_frozen=False,
)


def both_ranks(forks: Forks, function: Callable[[], None]) -> list[Process]:
    processes = [forks.call(function, place) for place in places(2)]
    assert [process.wait() for process in processes] == [0, 0], told(processes)
    return processes


def some_views(seed: int, fill: float | None = None) -> Views:
    """Random crops of four samples; `fill` instead makes all pixels equal."""
    generator = torch.Generator().manual_seed(seed)
    large, small = (torch.randn(8, 3, side, side, generator=generator) for side in (16, 8))
    if fill is not None:
        large, small = torch.full_like(large, fill), torch.full_like(small, fill)
    key = ViewKey(seed=0, epoch=seed, sample_ids=np.arange(4, dtype=np.uint64))
    states = np.zeros(16, dtype=np.int8)
    return Views(teacher_crops=large, student_crops=(large, small), states=states, key=key)


def share_of(views: Views, ranks: Ranks) -> Views:
    return list(views.split(len(views.key.sample_ids) // ranks.world))[ranks.rank]


def whole_state(learner: Learner) -> dict[str, Tensor]:
    state = HostCopies().take(learner.state_dict())
    moments = {f"adam.{index}": one for index, one in state.pop("optimizer")["state"].items()}
    parts: Mapping[str, Mapping[str, Tensor]] = state | moments
    return {f"{part}.{name}": one.clone() for part in parts for name, one in parts[part].items()}


def learn_side_by_side(
    ranks: Ranks, config: RunConfig, tolerance: float = 2e-5, **compute: bool
) -> None:
    """Three steps of ranks that share all out, and of a process that sees the whole batch."""
    alone = Learner(config, replace(ranks, rank=0, world=1), channels=3)
    shared_compute = replace(config.compute, sharding="fsdp", **compute)
    sharing = Learner(replace(config, compute=shared_compute), ranks, channels=3)
    for step in range(3):
        values = replace(VALUES, last_layer_frozen=step == 0)
        views = some_views(step)
        expected = alone.step(views, values, step)
        found = sharing.step(share_of(views, ranks), values, step)
        for name in ("loss", "gradient_norm", "skipped"):
            one, other = (float(getattr(report, name)) for report in (found, expected))
            assert one == pytest.approx(other, rel=5 * tolerance), (step, name)
    mine, theirs = whole_state(sharing), whole_state(alone)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.allclose(mine[name], tensor, rtol=1e-3, atol=tolerance), name


def learn_plainly() -> None:
    with join_ranks("cpu") as ranks:
        learn_side_by_side(ranks, SMALL)


def learn_in_other_ways() -> None:
    optim, head = SMALL.optim, SMALL.head
    changes = (
        replace(SMALL, optim=replace(optim, clip="per_tensor", clip_norm=0.01)),
        replace(SMALL, optim=replace(optim, clip_norm=0.01)),
        replace(SMALL, head=replace(head, unit_prototypes=False)),
        replace(SMALL, compute=ComputeConfig(micro_batch=1)),
        replace(SMALL, compute=ComputeConfig(checkpoint_activations=True)),
    )
    with join_ranks("cpu") as ranks:
        for config in changes:
            learn_side_by_side(ranks, config)


def learn_compiled() -> None:
    counts = torch._dynamo.utils.counters["stats"]
    with join_ranks("cpu") as ranks:
        for compute in ({"compile": True}, {"compile": True, "checkpoint_activations": True}):
            counts.clear()
            torch._dynamo.reset()
            learn_side_by_side(ranks, SMALL, **compute)
            # Attention and perceptron, with gradients and without.
            assert counts["unique_graphs"] >= 4


def learn_as_with_older_torch() -> None:
    # Which has no way to end a pass that no backward pass follows.
    if hasattr(FSDPModule, "reset_iter_state"):
        del FSDPModule.reset_iter_state
    learn_plainly()


def skip_together() -> None:
    with join_ranks("cpu") as ranks:
        learner = Learner(replace(SMALL, compute=SHARED_OUT), ranks, channels=3)
        learner.step(share_of(some_views(0), ranks), VALUES, 0)
        before = whole_state(learner)
        spoilt = some_views(1, fill=float("nan") if ranks.rank else 0.5)
        assert float(learner.step(share_of(spoilt, ranks), VALUES, 1).skipped) == 1
        after = whole_state(learner)
        moved = [name for name, one in before.items() if not torch.equal(one, after[name])]
        assert moved == ["skips.in_row", "skips.total"]
        teacher: Any = learner.networks.teacher
        for root in (teacher.backbone, teacher.head):
            # What torch notes of passes for a backward pass must not grow with the teacher's.
            assert not root._get_fsdp_state()._comm_ctx.post_forward_order


def held_bytes() -> int:
    """Of all tensors of this process."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if isinstance(one, Tensor)]
    storages = [one.untyped_storage() for one in tensors if not isinstance(one, DTensor)]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def hold_half() -> None:
    with join_ranks("cpu") as ranks:
        learners, held = [], [held_bytes()]
        for compute in (SHARED_OUT, ComputeConfig()):
            learner = Learner(replace(SMALL, compute=compute), ranks, channels=3)
            learner.step(share_of(some_views(0), ranks), VALUES, 0)
            learners.append(learner)
            held.append(held_bytes())
        shared_out, whole = np.diff(held)
        assert shared_out < 0.6 * whole
        for name, weights in learners[0].networks.named_parameters():
            assert isinstance(weights, DTensor)
            rows = np.array_split(np.arange(len(weights)), 2)[ranks.rank]
            assert len(weights.to_local()) == len(rows), name


def note_dtype(dtypes: dict[str, torch.dtype], name: str, layer: nn.Module, _: object) -> None:
    dtypes[name] = layer.get_parameter("weight").dtype


def learn_in_half_precision() -> None:
    bf16 = replace(
        SMALL,
        sampling=replace(SMALL.sampling, precision="bf16"),
        optim=replace(SMALL.optim, clip_norm=0.0),
    )
    with join_ranks("cpu") as ranks:
        holding = Learner(bf16, ranks, channels=3)
        sharing = Learner(replace(bf16, compute=SHARED_OUT), ranks, channels=3)
        gathered: dict[str, torch.dtype] = {}
        for name in ("attn.qkv", "mlp.fc1", "norm1"):
            layer = sharing.networks.student.get_submodule(f"backbone.vit.blocks.0.{name}")
            layer.register_forward_pre_hook(partial(note_dtype, gathered, name))
        for step in range(3):
            views = share_of(some_views(step), ranks)
            expected, found = (one.step(views, VALUES, step) for one in (holding, sharing))
            assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-6)
            norm = float(expected.gradient_norm)
            assert float(found.gradient_norm) == pytest.approx(norm, rel=1e-5)
        half, single = torch.bfloat16, torch.float32
        assert gathered == {"attn.qkv": half, "mlp.fc1": half, "norm1": single}
        own = sharing._weights.named["backbone.vit.blocks.0.attn.qkv.weight"]
        assert own.grad is not None
        assert own.dtype == own.grad.dtype == torch.float32
        # A sum in bf16 would be a number that bf16 has.
        assert not torch.equal(own.grad, own.grad.bfloat16().float())


def test_two_ranks_that_share_out_the_networks_learn_what_one_process_learns(forks: Forks) -> None:
    both_ranks(forks, learn_plainly)


def test_a_step_that_one_rank_must_skip_moves_no_rank_s_part(forks: Forks) -> None:
    both_ranks(forks, skip_together)


@pytest.mark.slow
def test_it_is_the_same_clipped_in_parts_recomputed_and_with_prototypes_of_any_length(
    forks: Forks,
) -> None:
    both_ranks(forks, learn_in_other_ways)


@pytest.mark.slow
def test_compiled_layers_learn_what_plain_ones_do(forks: Forks) -> None:
    both_ranks(forks, learn_compiled)


@pytest.mark.slow
def test_the_teacher_never_sees_weights_gathered_in_an_earlier_step(forks: Forks) -> None:
    both_ranks(forks, learn_as_with_older_torch)


@pytest.mark.slow
def test_in_bf16_the_loss_is_that_of_ranks_with_whole_networks(forks: Forks) -> None:
    both_ranks(forks, learn_in_half_precision)


@pytest.mark.slow
def test_each_rank_holds_its_rows_and_little_more_than_half_the_memory(forks: Forks) -> None:
    both_ranks(forks, hold_half)


# Rounding decides the sign of Adam's step where a gradient is all but zero: a small learning rate.
GENTLE = replace(
    TINY,
    model=replace(TINY.model, drop_path=0.5),
    schedule=replace(TINY.schedule, epochs=2, lr=0.001),
    output=replace(TINY.output, log_every_steps=1),
    health=HealthConfig(every_steps=2, samples=6, knn_every_epochs=1, knn_bank=9, knn_queries=5),
)
SHARING = replace(GENTLE, compute=SHARED_OUT)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    return make_dataset(folder, samples={"train": 28, "validation": 8})


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "alone"
    assert run_here(dataset, run, GENTLE).is_finished
    return run


def train(forks: Forks, dataset: Path, run: Path, config: RunConfig, *more: str) -> None:
    processes = start_ranks(forks, dataset, run, config, 2, *more)
    assert [process.wait() for process in processes] == [0, 0], told(processes)


def assert_same_run(found: Path, expected: Path) -> None:
    """Files of one layout with all but equal weights, after steps with all but equal losses."""
    mine, other = (read_checkpoint(run) for run in (found, expected))
    assert mine.step == other.step == 6
    assert mine.optimizer["param_groups"] == other.optimizer["param_groups"]
    tensors, others = tensors_of(mine), tensors_of(other)
    assert list(tensors) == list(others)
    for name, tensor in tensors.items():
        assert type(tensor) is Tensor, name
        assert torch.allclose(tensor, others[name], atol=2e-5), name
    pairs = zip(read_metrics(found), read_metrics(expected), strict=True)
    assert all(one["loss"] == pytest.approx(two["loss"], rel=1e-4) for one, two in pairs)


def assert_same_looks(found: Path, expected: Path) -> None:
    for row, other in zip(read_health(found), read_health(expected), strict=True):
        measures = {key: one for key, one in row.items() if key != "health/seconds"}
        assert measures == pytest.approx({key: other[key] for key in measures}, rel=1e-3, abs=1e-4)


def test_a_run_that_is_shared_out_leaves_the_files_of_one_process(
    forks: Forks, dataset: Path, alone: Path, tmp_path: Path
) -> None:
    train(forks, dataset, tmp_path / "run", SHARING)
    assert_same_run(tmp_path / "run", alone)
    assert_same_looks(tmp_path / "run", alone)
    backbone = read_frozen_backbone(tmp_path / "run").network
    expected = read_frozen_backbone(alone).network
    images = torch.rand(2, 14, 24, 24)
    assert torch.allclose(backbone(images), expected(images), atol=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_shared_out_whole_and_alone_in_any_order(
    forks: Forks, dataset: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(forks, dataset, run, SHARING, "--max-steps", "1")
    run_here(dataset, run, GENTLE, max_steps=1)
    train(forks, dataset, run, SHARING, "--max-steps", "1")
    train(forks, dataset, run, GENTLE, "--max-steps", "1")
    four = start_ranks(forks, dataset, run, SHARING, 4)
    assert [process.wait() for process in four] == [0] * 4, told(four)
    assert_same_run(run, alone)
    assert_same_looks(run, alone)


@pytest.mark.slow
def test_a_signal_saves_the_parts_of_all_ranks(forks: Forks, dataset: Path, tmp_path: Path) -> None:
    endless = replace(SHARING, schedule=replace(GENTLE.schedule, epochs=10_000, lr=1e-4))
    run, whole = tmp_path / "run", tmp_path / "whole"
    processes = start_ranks(forks, dataset, run, endless, 2)
    wait_for_metrics(run, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait() for process in processes] == [85, 85], told(processes)
    stopped_at = read_checkpoint(run).step
    assert re.findall(r"stopped after step (\d+)", told(processes)) == [str(stopped_at)] * 2
    run_here(dataset, whole, replace(endless, compute=GENTLE.compute), max_steps=stopped_at)
    mine, other = (tensors_of(read_checkpoint(one)) for one in (run, whole))
    for name, tensor in mine.items():
        assert torch.allclose(tensor, other[name], rtol=1e-3, atol=2e-5), name


@pytest.mark.slow
def test_a_capsule_of_ranks_that_share_is_whole_and_replayed_by_one_process(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lost = replace(
        SHARING,
        schedule=replace(GENTLE.schedule, lr=1e30, warmup_epochs=0),
        optim=replace(GENTLE.optim, stop_after_skipped=2),
    )
    processes = start_ranks(forks, dataset, run, lost, 2)
    assert [process.wait() for process in processes] == [1, 1], told(processes)
    (capsule,) = (run / "capsules").iterdir()
    found = replay(capsule, StoredDataset.open(dataset), "cpu")
    assert "not finite" in found.describe()
    assert found.finding


def test_one_process_alone_is_refused_before_the_first_step(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="there is one; start it with torchrun"):
        run_here(dataset, tmp_path, SHARING)
    assert not (tmp_path / "checkpoints").exists()

"""A run that meets numbers that are not finite stops, and its capsule says which came first."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import xxhash

from bigearth_prep.card import CARD_NAME, MANIFEST_NAME
from dinomm_train import capsule
from dinomm_train.capsule import read_capsule
from dinomm_train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from dinomm_train.cli import main
from dinomm_train.config import HealthConfig, RunConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from dinomm_train.metrics import read_metrics
from dinomm_train.models.projection_head import ProjectionHead
from dinomm_train.replay import Replay, replay
from tests.integration.test_trainer import TINY, run_here, start_ranks, told
from tests.run_processes import Forks, places, pretrain_arguments
from tests.shard_fixture import make_dataset

IMPATIENT = replace(
    TINY,
    optim=replace(TINY.optim, stop_after_skipped=2),
    views=replace(TINY.views, sensor_drop=replace(TINY.views.sensor_drop, probability=0.0)),
    health=HealthConfig(samples=0, knn_every_epochs=0),
)


def poison(dataset: Path, keys: list[str], *, band: int) -> None:
    """Write a NaN into one optical band of these samples, and make all checksums agree with it."""
    table = pq.read_table(dataset / MANIFEST_NAME).to_pandas()
    for _, row in table[table["key"].isin(keys)].iterrows():
        path = dataset / row["shard"]
        content = bytearray(path.read_bytes())
        first = int(row["offset_s2"]) + 4 * (band * 32 * 32 + 5)
        content[first : first + 4] = np.float32("nan").tobytes()
        path.write_bytes(content)
    card = json.loads((dataset / CARD_NAME).read_text())
    for shard in card["splits"]["train"]["shards"]:
        shard["xxh3_128"] = xxhash.xxh3_128_hexdigest((dataset / shard["name"]).read_bytes())
    (dataset / CARD_NAME).write_text(json.dumps(card))


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A dataset of floats, in which every sample but the first eight holds a NaN."""
    made = make_dataset(tmp_path / "shards", samples={"train": 28}, scheme="zscore")
    poison(made, [f"train_S2_patch_{index:04}" for index in range(8, 28)], band=3)
    return made


def capsule_of(run: Path) -> Path:
    (folder,) = (run / "capsules").iterdir()
    return folder


def test_a_poisoned_sample_stops_the_run_and_is_named_with_its_band(
    poisoned: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainError, match=r"2 steps in a row up to step 1 were skipped") as ending:
        run_here(poisoned, run, IMPATIENT)
    folder = capsule_of(run)
    assert f"dinomm-train replay {folder} {poisoned}" in str(ending.value)
    facts, before = read_capsule(folder)
    assert (facts.step, facts.epoch, facts.world, facts.skipped_in_row) == (1, 0, 1, 2)
    assert len(set(facts.keys)) == 8
    found = replay(folder, StoredDataset.open(poisoned), "cpu")
    first = next(key for key in facts.keys if int(key[-4:]) >= 8)
    assert found.finding.startswith(f"sample {first}, band B04, as stored: 1 of 1,024 values")
    assert (found.step, found.rank, found.samples) == (1, 0, 8)
    rows = read_metrics(run)
    assert [(row["step"], row["skipped_steps"], "loss" in row) for row in rows] == [(2, 2, False)]
    assert before.step == 1


def test_the_share_of_the_rank_at_fault_is_found_and_all_ranks_stop_together(
    forks: Forks, tmp_path: Path
) -> None:
    made = make_dataset(tmp_path / "shards", samples={"train": 28}, scheme="zscore")
    run_here(made, tmp_path / "fine", replace(IMPATIENT, schedule=TINY.schedule), max_steps=1)
    poison(made, [f"train_S2_patch_{index:04}" for index in range(28)], band=0)
    run = tmp_path / "run"
    processes = start_ranks(forks, made, run, IMPATIENT, 2)
    assert [process.wait() for process in processes] == [1, 1], told(processes)
    for process in processes:
        assert "error: 2 steps in a row up to step 1 were skipped" in process.errors.read_text()
    facts, _ = read_capsule(capsule_of(run))
    assert (facts.world, len(facts.keys)) == (2, 8)
    found = replay(capsule_of(run), StoredDataset.open(made), "cpu")
    assert found.finding.startswith(f"sample {facts.keys[0]}, band B01, as stored")


def learn_on_a_slow_disk() -> None:
    def write_slowly(path: Path, checkpoint: Checkpoint, advance: Callable[[], None]) -> None:
        for _ in range(20):
            time.sleep(0.3)
            advance()
        write_checkpoint(path, checkpoint)

    sys.argv = ["dinomm-train", *json.loads(os.environ["DINOMM_TEST_ARGUMENTS"])]
    with mock.patch.object(capsule, "write_checkpoint", write_slowly):
        main()


def test_ranks_wait_for_the_capsule_before_they_end(forks: Forks, tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "shards", samples={"train": 28}, scheme="zscore")
    poison(made, [f"train_S2_patch_{index:04}" for index in range(28)], band=0)
    run = tmp_path / "run"
    arguments = pretrain_arguments(made, run, IMPATIENT, "--hang-timeout", "2")
    given = {"DINOMM_TEST_ARGUMENTS": json.dumps(arguments)}
    processes = [forks.call(learn_on_a_slow_disk, place | given) for place in places(2)]
    assert [process.wait() for process in processes] == [1, 1], told(processes)
    read_capsule(capsule_of(run))


def test_a_full_disk_does_not_hide_why_the_run_stops(forks: Forks, tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "shards", samples={"train": 28}, scheme="zscore")
    poison(made, [f"train_S2_patch_{index:04}" for index in range(28)], band=0)
    arguments = pretrain_arguments(made, tmp_path / "run", IMPATIENT)
    full = {"DINOMM_TEST_FILE_BYTES": "20000"}
    processes = [forks.start(arguments, place | full) for place in places(2)]
    assert [process.wait() for process in processes] == [1, 1], told(processes)
    for process, fault in zip(processes, ("[Errno 27] File too large", "rank 0 says"), strict=True):
        said = process.errors.read_text()
        assert "error: 2 steps in a row up to step 1 were skipped" in said
        assert f"no capsule could be written: {fault}" in said
        assert "Traceback" not in said


def blow_up(dataset: Path, run: Path, config: RunConfig) -> Replay:
    with pytest.raises(TrainError, match="were skipped"):
        run_here(dataset, run, config)
    return replay(capsule_of(run), StoredDataset.open(dataset), "cpu")


def test_a_learning_rate_that_blows_up_is_traced_to_a_layer(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "shards", samples={"train": 28})
    wild = replace(IMPATIENT, schedule=replace(TINY.schedule, lr=1e30, warmup_epochs=0))
    found = blow_up(made, tmp_path / "run", wild)
    assert re.match(r"the output of (student|teacher)\.backbone\.vit\.[\w.]+: ", found.finding)
    state = read_checkpoint(capsule_of(tmp_path / "run") / "state.pt")
    assert all(weights.isfinite().all() for weights in state.student.values())


def test_a_gradient_that_overflows_is_named_where_it_first_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(_: object, features: torch.Tensor) -> torch.Tensor:
            return features.clone()

        @staticmethod
        def backward(_: object, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    real = ProjectionHead.forward
    monkeypatch.setattr(
        ProjectionHead, "forward", lambda self, features: real(self, Overflow.apply(features))
    )
    made = make_dataset(tmp_path / "shards", samples={"train": 28})
    found = blow_up(made, tmp_path / "run", IMPATIENT)
    assert found.finding.startswith("the gradient of backbone.vit.norm.")


def test_a_step_that_is_finite_the_second_time_says_so(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "shards", samples={"train": 28})
    wild = replace(IMPATIENT, schedule=replace(TINY.schedule, lr=1e30, warmup_epochs=0))
    with pytest.raises(TrainError, match="were skipped"):
        run_here(made, tmp_path / "run", wild)
    run_here(made, tmp_path / "fine", IMPATIENT, max_steps=2)
    good = (tmp_path / "fine" / "checkpoints" / "step-00000002.pt").read_bytes()
    (capsule_of(tmp_path / "run") / "state.pt").write_bytes(good)
    found = replay(capsule_of(tmp_path / "run"), StoredDataset.open(made), "cpu")
    assert found.finding == ""
    assert "everything was finite this time" in found.describe()


def test_a_capsule_of_another_dataset_or_none_at_all_is_refused(
    poisoned: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match="is no whole capsule"):
        replay(tmp_path, StoredDataset.open(poisoned), "cpu")
    with pytest.raises(TrainError, match="were skipped"):
        run_here(poisoned, tmp_path / "run", IMPATIENT)
    other = make_dataset(tmp_path / "other", samples={"train": 28})
    with pytest.raises(TrainError, match="name the dataset that the run learnt from"):
        replay(capsule_of(tmp_path / "run"), StoredDataset.open(other), "cpu")

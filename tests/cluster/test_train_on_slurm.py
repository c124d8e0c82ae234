"""The shipped job script: two nodes train as one, through the end of a job's time."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.config import (
    CropConfig,
    HeadConfig,
    HealthConfig,
    ModelConfig,
    OutputConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
    ViewConfig,
)
from dinomm_train.config_text import config_to_toml
from dinomm_train.metrics import read_metrics
from tests.cluster.slurm import Job, Slurm, stand_in_container, wait_until
from tests.shard_fixture import make_dataset

SCRIPTS = Path(__file__).parents[2] / "docker" / "slurm"

TINY = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=2, width=24, heads=2),
    head=HeadConfig(hidden=32, bottleneck=16, prototypes=64),
    views=ViewConfig(crops=CropConfig(global_px=24, local_px=16, local_count=2)),
    schedule=ScheduleConfig(epochs=20, warmup_epochs=1, lr=0.001),
    sampling=SamplingConfig(global_batch=8, seed=3),
    output=OutputConfig(log_every_steps=1),
    health=HealthConfig(every_steps=0, samples=8, knn_every_epochs=0),
)
STEPS = 60

SLOW = replace(TINY, health=replace(TINY.health, every_steps=1, samples=2000))
"""Learns the same: looks change no weight. They take the time in which Slurm sees the limit."""

NODE_OPTIONS = ["--nodes=2", "--gpus-per-node=0", "--cpus-per-task=1"]
VARIABLES = {"PROCESSES": "1", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = {"train": 28, "validation": 2000, "test": 8}
    return make_dataset(tmp_path_factory.mktemp("shards"), samples=samples)


def submit(
    slurm: Slurm, dataset: Path, config: RunConfig, folder: Path, *options: str, **variables: str
) -> Job:
    (folder / "run.toml").write_text(config_to_toml(config))
    arguments = ["--out", "run", "--config", "run.toml", "--device", "cpu", "--threads", "1"]
    return slurm.submit(
        SCRIPTS / "pretrain.sbatch",
        [dataset, *arguments],
        folder=folder,
        options=[*NODE_OPTIONS, *options],
        variables=VARIABLES | variables,
    )


@pytest.fixture(scope="module")
def undisturbed(slurm: Slurm, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    container = str(stand_in_container(folder))
    job = submit(slurm, dataset, TINY, folder, "--time=10", CONTAINER=container)
    assert job.await_end(200) == "COMPLETED", job.describe()
    return folder / "run"


def test_two_nodes_train_one_network(undisturbed: Path) -> None:
    assert read_checkpoint(undisturbed).step == STEPS
    output = next(undisturbed.parent.glob("*.out")).read_text()
    assert "on 2 cpu process(es)" in output
    assert output.count("inside: torchrun") == 2
    assert not (undisturbed / "requeue").exists()


def test_a_job_at_its_time_limit_starts_again_and_ends_with_the_same_weights(
    slurm: Slurm, dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(slurm, dataset, SLOW, tmp_path, "--time=10", "--signal=USR1@55")
    run = tmp_path / "run"
    wait_until((run / "metrics.jsonl").exists, 200, job.describe)
    # The end comes within a minute, not at once: half a minute is left at least.
    hours, minutes, seconds = map(int, job.field("RunTime").split(":"))
    limit = hours * 60 + minutes + (1 if seconds < 30 else 2)
    slurm.call("scontrol", "update", f"JobId={job.number}", f"TimeLimit={limit}")
    wait_until((run / "requeue").exists, 200, job.describe)
    stopped_at = read_checkpoint(run).step
    assert 0 < stopped_at < STEPS
    (tmp_path / "run.toml").write_text(config_to_toml(TINY))
    wait_until(lambda: job.field("JobState") == "PENDING", 100, job.describe)
    slurm.call("scontrol", "update", f"JobId={job.number}", "TimeLimit=10")
    assert job.await_end(300) == "COMPLETED", job.describe()
    assert job.field("Restarts") == "1"
    output = job.output.read_text()
    assert f"SIGUSR1: stopped after step {stopped_at}" in output
    assert f"after step {stopped_at} of {STEPS}" in output
    # Of which torchrun would have died, and left no time for a larger checkpoint.
    assert "User defined signal" not in output
    assert not (run / "requeue").exists()
    assert [row["step"] for row in read_metrics(run)] == list(range(1, STEPS + 1))
    mine, other = read_checkpoint(run), read_checkpoint(undisturbed)
    for part in ("student", "teacher", "loss"):
        expected = getattr(other, part)
        for name, tensor in getattr(mine, part).items():
            assert torch.equal(tensor, expected[name]), (part, name)


def test_a_run_that_fails_does_not_start_again(slurm: Slurm, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "requeue").write_text("of an earlier job")
    job = submit(slurm, dataset / "nowhere", TINY, tmp_path, "--nodes=1")
    assert job.await_end(200) == "FAILED", job.describe()
    assert job.field("Restarts") == "0"


def test_scores_come_through_a_command_that_stands_for_the_container(
    slurm: Slurm, dataset: Path, tmp_path: Path
) -> None:
    options = ["--out", "scores", "--protocol", "knn", "--device", "cpu"]
    tiny = ["model.depth=1", "model.width=24", "model.heads=2", "model.patch_px=8"]
    job = slurm.submit(
        SCRIPTS / "evaluate.sbatch",
        ["random", dataset, *options, *(part for one in tiny for part in ("--set", one))],
        folder=tmp_path,
        options=["--gpus-per-node=0", "--cpus-per-task=1"],
        variables=VARIABLES | {"CONTAINER": str(stand_in_container(tmp_path))},
    )
    assert job.await_end(200) == "COMPLETED", job.describe()
    assert (tmp_path / "scores" / "scores.json").exists()
    assert "inside: dinomm-train" in job.output.read_text()

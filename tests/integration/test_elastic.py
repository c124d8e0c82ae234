"""A run goes on with another number of ranks, on one machine or several, and learns the same."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.config import HealthConfig
from dinomm_train.metrics import read_health, read_metrics
from tests.integration.test_trainer import TINY, run_here, start_ranks, tensors_of, told
from tests.run_processes import Forks, free_port, pretrain_arguments
from tests.shard_fixture import make_dataset

# Sums in another order differ in their last bits, and Adam's first steps enlarge that, hence the
# small learning rate.
ELASTIC = replace(
    TINY,
    schedule=replace(TINY.schedule, epochs=2, lr=0.001),
    health=HealthConfig(every_steps=2, samples=6, knn_every_epochs=1, knn_bank=9, knn_queries=5),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    return make_dataset(folder, samples={"train": 28, "validation": 8})


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "alone"
    assert run_here(dataset, run, ELASTIC).is_finished
    return run


def assert_close_weights(found: Path, expected: Path) -> None:
    mine, other = (tensors_of(read_checkpoint(run)) for run in (found, expected))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        if name.startswith("adam"):
            # All that Adam saw: a restart without it would move the weights by less than rounding.
            off, size = (tensor - other[name]).norm(), other[name].norm()
            assert off <= 1e-3 * size, name
        else:
            assert torch.allclose(tensor, other[name], atol=2e-5), name


def test_four_ranks_become_two_in_the_middle_of_an_epoch(
    forks: Forks, dataset: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    four = start_ranks(forks, dataset, run, ELASTIC, 4, "--max-steps", "2")
    assert [process.wait() for process in four] == [0] * 4, told(four)
    assert read_checkpoint(run).step == 2
    two = start_ranks(forks, dataset, run, ELASTIC, 2)
    assert [process.wait() for process in two] == [0] * 2, told(two)
    assert_close_weights(run, alone)
    # Losses of the same samples in the same steps.
    pairs = zip(read_metrics(run), read_metrics(alone), strict=True)
    assert all(mine["loss"] == pytest.approx(other["loss"], rel=1e-4) for mine, other in pairs)


def torchrun(
    dataset: Path, run: Path, *options: str, config: object = ELASTIC
) -> subprocess.Popen[str]:
    """A launcher with its workers; `options` say which of how many nodes it is."""
    arguments = pretrain_arguments(dataset, run, ELASTIC if config is ELASTIC else config)  # type: ignore[arg-type]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options]
    return subprocess.Popen(
        [*launcher, "-m", "dinomm_train", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two_nodes(dataset: Path, run: Path) -> list[subprocess.Popen[str]]:
    """Two launchers that meet as the nodes of a job do, without a look at host names."""
    meet = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    return [torchrun(dataset, run, *meet, f"--node-rank={node}") for node in range(2)]


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return sorted(map(int, children.read_text(encoding="utf-8").split()))


def wait_for_checkpoint(run: Path, launcher: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "latest").is_file():
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_two_nodes_of_two_ranks_give_the_weights_of_one_process(
    dataset: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    nodes = two_nodes(dataset, run)
    said = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert_close_weights(run, alone)
    looks, expected = read_health(run), read_health(alone)
    assert [row["step"] for row in looks] == [row["step"] for row in expected] == [2, 3, 4, 6]
    for row, other in zip(looks, expected, strict=True):
        measures = {key: one for key, one in row.items() if key != "health/seconds"}
        assert measures == pytest.approx({key: other[key] for key in measures}, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_signal_to_all_workers_of_two_nodes_saves_and_the_run_goes_on_as_one_process(
    dataset: Path, tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    longer = replace(ELASTIC, schedule=replace(ELASTIC.schedule, epochs=20, lr=1e-4))
    meet = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    nodes = [
        torchrun(dataset, run, *meet, f"--node-rank={node}", config=longer) for node in range(2)
    ]
    wait_for_checkpoint(run, nodes[0])
    for node in nodes:
        for pid in workers_of(node):
            os.kill(pid, signal.SIGUSR1)
    said = "".join(node.communicate(timeout=100)[0] for node in nodes)
    assert [node.returncode for node in nodes] == [1, 1]  # torchrun's word for any failure
    assert "exitcode  : 85" in said.replace("exitcode : 85", "exitcode  : 85")
    stopped_at = read_checkpoint(run).step
    assert said.count(f"stopped after step {stopped_at} of 60") == 4
    assert run_here(dataset, run, longer).is_finished
    assert run_here(dataset, whole, longer).is_finished
    assert_close_weights(run, whole)


@pytest.mark.slow
def test_a_killed_worker_of_torchrun_ends_the_job_by_name_and_it_restarts_to_the_same(
    dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    longer = replace(ELASTIC, schedule=replace(ELASTIC.schedule, epochs=25, lr=1e-4))
    launcher = torchrun(dataset, run, "--standalone", config=longer)
    wait_for_checkpoint(run, launcher)
    os.kill(workers_of(launcher)[1], signal.SIGKILL)
    start_s = time.monotonic()
    said = launcher.communicate(timeout=100)[0]
    assert launcher.returncode == 1
    assert time.monotonic() - start_s < 90
    assert "rank 1 on" in said or "rank      : 1" in said
    again = torchrun(dataset, run, "--standalone", config=longer)
    assert again.wait(timeout=200) == 0, again.communicate()[0]
    assert again.stdout is not None
    again.stdout.close()
    assert run_here(dataset, tmp_path / "whole", longer).is_finished
    assert_close_weights(run, tmp_path / "whole")

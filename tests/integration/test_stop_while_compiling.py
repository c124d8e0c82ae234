"""A signal to every process of a job, compilers included, does not break a run that compiles."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.config import ComputeConfig, RunConfig
from tests.integration.test_trainer import TINY
from tests.run_processes import is_listening, pretrain_arguments
from tests.shard_fixture import make_dataset


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return list(map(int, listed.split()))


def start(dataset: Path, run: Path, config: RunConfig) -> subprocess.Popen[str]:
    """A process that imports for itself, at the head of a group as a job's step is."""
    return subprocess.Popen(
        [sys.executable, "-m", "dinomm_train", *pretrain_arguments(dataset, run, config)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(run.parent / "compiled")},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("shards"), samples={"train": 28})


@pytest.mark.slow
def test_a_signal_while_torch_is_imported_is_heeded_and_one_at_the_end_changes_nothing(
    dataset: Path, tmp_path: Path
) -> None:
    process = start(dataset, tmp_path / "run", TINY)
    wait_for(lambda: is_listening(process.pid), process)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    _, said = process.communicate()
    assert process.returncode == 85, said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_signal_to_the_whole_job_while_it_compiles_saves_after_the_step(
    dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(dataset, run, replace(TINY, compute=ComputeConfig(compile=True)))
    wait_for((run / "config.toml").is_file, process)
    # Compilers are the only processes that a run starts then.
    wait_for(lambda: bool(children_of(process.pid)), process)
    for _ in range(5):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 85, said
    assert read_checkpoint(run).step == 1, said

"""Worker processes, schedulers and whole builds really killed, on clusters of real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bigearth_prep.manifest import read_manifest
from tests.archive_fixture import make_archive, tree_bytes

FAULTS = '''
"""Loaded by every Dask worker: kills it at one patch, as often as FAULT_TIMES says."""

import os
import signal
import time
from pathlib import Path

from bigearth_prep import shard_task

deaths = Path(os.environ["FAULT_DEATHS"])
read_pair = shard_task._read_pair


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(bytes([1]) * 20_000_000)
        time.sleep(0.02)


def faulty(reader, row):
    time.sleep(float(os.environ.get("FAULT_DELAY_S", "0")))
    count = len(deaths.read_text().splitlines()) if deaths.exists() else 0
    if row["key"] == os.environ["FAULT_KEY"] and count < int(os.environ["FAULT_TIMES"]):
        with deaths.open("a") as stream:
            stream.write("dead\\n")
        {"die": die, "eat memory": eat_memory}[os.environ["FAULT_HOW"]]()
    return read_pair(reader, row)


shard_task._read_pair = faulty
'''


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("v2") / "archive", "v2", pairs=40)


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed build."""
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(build_command(archive, out, "--workers", "0"), check=True)
    return out


@pytest.fixture
def environment(tmp_path: Path, whole: Path) -> dict[str, str]:
    """Of the processes that are to fail at one patch in the middle of a shard."""
    (tmp_path / "faults.py").write_text(FAULTS)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)]),
        "DASK_DISTRIBUTED__WORKER__PRELOAD": '["faults"]',
        "FAULT_KEY": read_manifest(whole).column("key")[6].as_py(),
        "FAULT_TIMES": "0",
        "FAULT_HOW": "die",
        "FAULT_DEATHS": str(tmp_path / "deaths"),
        # Dask would give a worker up before it is there again, as on a busy machine after 15 s.
        "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "100ms",
    }


def build_command(archive: Path, out: Path, *options: str | Path) -> list[str]:
    tables = [
        part for table in sorted(archive.glob("metadata*")) for part in ("--metadata", str(table))
    ]
    roots = ["--s2", str(archive / "BigEarthNet-S2"), "--s1", str(archive / "BigEarthNet-S1")]
    command = [sys.executable, "-m", "bigearth_prep", "build-shards", *roots, *tables]
    return [*command, "--out", str(out), "--shard-mb", "1", *map(str, options)]


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=240
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def cluster(folder: Path, environment: dict[str, str], *options: str) -> Iterator[tuple[Path, int]]:
    """A scheduler and one worker started by hand: its file, and the scheduler's process."""
    file = folder / "scheduler.json"
    dask, where = [sys.executable, "-m", "dask"], ["--scheduler-file", str(file), "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker_options = ["--nthreads", "1", "--death-timeout", "30", *options]
    local = ["--local-directory", str(folder / "dask")]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", *where, "--port", "0", "--host", "127.0.0.1"],
        env=environment,
        **quiet,  # type: ignore[call-overload]
    )
    worker = subprocess.Popen(
        [*dask, "worker", *where, *worker_options, *local],
        env=environment,
        **quiet,  # type: ignore[call-overload]
    )
    try:
        wait_for(file.exists)
        yield file, scheduler.pid
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait(30)


def test_a_worker_killed_in_the_middle_of_a_shard_changes_no_byte(
    archive: Path, tmp_path: Path, whole: Path, environment: dict[str, str]
) -> None:
    command = build_command(archive, tmp_path / "out", "--workers", "1")
    result = run(command, environment | {"FAULT_TIMES": "1"})
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "deaths").read_text() == "dead\n"
    assert tree_bytes(tmp_path / "out") == tree_bytes(whole)


@pytest.mark.slow
@pytest.mark.parametrize("allowed_by_dask", [0, 20])
def test_a_patch_that_kills_every_worker_is_named_after_three_tries_whatever_dask_allows(
    archive: Path, tmp_path: Path, whole: Path, environment: dict[str, str], allowed_by_dask: int
) -> None:
    deadly = environment | {
        "FAULT_TIMES": "99",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_by_dask),
    }
    command = build_command(archive, tmp_path / "out", "--workers", "1")
    result = run(command, deadly)
    assert result.returncode == 1
    assert (tmp_path / "deaths").read_text().split() == ["dead"] * 3
    key, (shard,) = environment["FAULT_KEY"], read_manifest(whole).column("shard")[6:7].to_pylist()
    expected = f"error: {shard} has killed its worker process 3 times, at patch {key}; if that"
    assert last_line(result).startswith(expected)
    assert "--exclude FILE --overwrite" in last_line(result)
    excluded = tmp_path / "exclude.txt"
    excluded.write_text(f"{key}\n")
    result = run([*command, "--exclude", str(excluded), "--overwrite"], deadly)
    assert result.returncode == 0, result.stderr
    assert key not in read_manifest(tmp_path / "out").column("key").to_pylist()


@pytest.mark.slow
def test_a_worker_that_runs_out_of_memory_is_started_again_by_its_nanny(
    archive: Path, tmp_path: Path, whole: Path, environment: dict[str, str]
) -> None:
    hungry = environment | {"FAULT_TIMES": "1", "FAULT_HOW": "eat memory"}
    with cluster(tmp_path, hungry, "--memory-limit", "600MB") as (file, _):
        result = run(build_command(archive, tmp_path / "out", "--scheduler-file", file), hungry)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "deaths").read_text() == "dead\n"
    assert tree_bytes(tmp_path / "out") == tree_bytes(whole)


@pytest.mark.slow
def test_a_killed_scheduler_is_one_message_and_the_next_start_gives_the_same_bytes(
    archive: Path, tmp_path: Path, whole: Path, environment: dict[str, str]
) -> None:
    slow = environment | {"FAULT_DELAY_S": "0.2"}
    with cluster(tmp_path, slow) as (file, scheduler):
        command = build_command(archive, tmp_path / "out", "--scheduler-file", file)
        process = subprocess.Popen(command, env=slow, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: list((tmp_path / "out").glob("*/*.tar")))
        os.kill(scheduler, signal.SIGKILL)
        _, output = process.communicate(timeout=100)
    assert process.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: the Dask scheduler is gone (tcp://127.0.0.1:")
    assert "Traceback" not in output
    assert not (tmp_path / "out" / "dataset.json").exists()
    file.unlink()
    with cluster(tmp_path, environment) as (file, _):
        result = run(
            build_command(archive, tmp_path / "out", "--scheduler-file", file), environment
        )
    assert result.returncode == 0, result.stderr
    assert tree_bytes(tmp_path / "out") == tree_bytes(whole)


@pytest.mark.slow
def test_everything_killed_at_once_goes_on_at_the_next_start_which_says_where_it_was(
    archive: Path, tmp_path: Path, whole: Path, environment: dict[str, str]
) -> None:
    slow = environment | {"FAULT_DELAY_S": "0.2"}
    command = build_command(archive, tmp_path / "out", "--workers", "2")
    process = subprocess.Popen(command, env=slow, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: list((tmp_path / "out").glob("*/*.tar")))
    wait_for(lambda: list((tmp_path / "out").glob(".build/*/*.at")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    result = run(build_command(archive, tmp_path / "out", "--workers", "0"), environment)
    assert result.returncode == 0, result.stderr
    assert "an earlier start was killed at patch S2" in result.stderr
    assert tree_bytes(tmp_path / "out") == tree_bytes(whole)

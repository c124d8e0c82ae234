"""Shards built by workers that Slurm started: the same bytes, or one clear message."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive_fixture import build, tree_bytes
from tests.cluster.slurm import Slurm, stand_in_container, wait_until

SCRIPT = Path(__file__).parents[2] / "docker" / "slurm" / "build-shards.sbatch"

PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"

JOB_OF_WORKERS = """\
cores = 1
memory = "1500 MB"
walltime = "00:10:00"
interface = "lo"
"""


def build_arguments(archive: Path, out: Path) -> list[str | Path]:
    tables = sorted(archive.glob("metadata*.parquet"))
    return [
        *("--s2", archive / "BigEarthNet-S2", "--s1", archive / "BigEarthNet-S1"),
        *(part for table in tables for part in ("--metadata", table)),
        *("--out", out, "--shard-mb", "1"),
    ]


def prep(
    slurm: Slurm, folder: Path, *arguments: str | Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bigearth_prep", *map(str, arguments)],
        cwd=folder,
        env=slurm.environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def expected(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "dataset"
    build(archive, out)
    return tree_bytes(out)


def test_workers_in_slurm_jobs_write_the_bytes_that_one_process_writes(
    slurm: Slurm, archive: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "slurm.toml").write_text(JOB_OF_WORKERS)
    result = prep(
        slurm,
        tmp_path,
        *("build-shards", *build_arguments(archive, tmp_path / "dataset")),
        *("--slurm", "--slurm-config", "slurm.toml", "--workers", "2"),
    )
    assert result.returncode == 0, result.stderr
    assert "2 Slurm jobs asked for" in result.stderr
    assert tree_bytes(tmp_path / "dataset") == expected
    assert len(list((tmp_path / "slurm-logs").glob("*.err"))) == 2
    assert slurm.call("squeue", "--noheader", "--states=PENDING,RUNNING") == ""


def test_jobs_whose_python_cannot_start_workers_end_the_build_with_their_last_words(
    slurm: Slurm, archive: Path, tmp_path: Path
) -> None:
    # As on a node without the environment: a Python that has neither Dask nor this package.
    bare = f"python = '{sys.executable} -S'\n"
    (tmp_path / "slurm.toml").write_text(JOB_OF_WORKERS + bare)
    result = prep(
        slurm,
        tmp_path,
        *("build-shards", *build_arguments(archive, tmp_path / "dataset")),
        *("--slurm", "--slurm-config", "slurm.toml"),
    )
    assert result.returncode == 1
    assert "every worker job ended before its worker came" in result.stderr
    assert "No module named" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_workers_without_the_package_are_named(slurm: Slurm, archive: Path, tmp_path: Path) -> None:
    # As in another environment: Dask is there, this package is not. What hides it is a package
    # of that name that holds nothing.
    (tmp_path / "other" / "bigearth_prep").mkdir(parents=True)
    hide = f"job-script-prologue = ['export PYTHONPATH={tmp_path / 'other'}']\n"
    (tmp_path / "slurm.toml").write_text(JOB_OF_WORKERS + hide)
    (tmp_path / "other" / "bigearth_prep" / "__init__.py").write_text("")
    result = prep(
        slurm,
        tmp_path,
        *("build-shards", *build_arguments(archive, tmp_path / "dataset")),
        *("--slurm", "--slurm-config", "slurm.toml"),
    )
    assert result.returncode == 1
    assert "has no bigearth_prep; install version" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_job_at_its_time_limit_goes_back_into_the_queue_and_ends_with_the_same_bytes(
    slurm: Slurm, archive: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    # At its first start no worker comes, so that the signal finds the build waiting.
    first = '[ -n "${SLURM_STEP_ID:-}" ] && [ "${SLURM_RESTART_COUNT:-0}" = 0 ]'
    job = slurm.submit(
        SCRIPT,
        build_arguments(archive, tmp_path / "dataset"),
        folder=tmp_path,
        options=["--nodes=1", "--cpus-per-task=1", "--mem-per-cpu=1G", "--time=10"],
        variables={"INTERFACE": "lo", "PATH": PATH, "SETUP": f"if {first}; then sleep 300; fi"},
    )
    wait_until(lambda: "has no workers" in job.describe(), 200, job.describe)
    # As Slurm does two minutes before the limit.
    slurm.call("scancel", "--batch", "--signal=USR1", job.number)
    assert job.await_end(200) == "COMPLETED", job.describe()
    assert job.field("Restarts") == "1"
    assert "the time limit is near" in job.output.read_text()
    assert tree_bytes(tmp_path / "dataset") == expected


def test_the_job_script_builds_with_workers_on_two_nodes(
    slurm: Slurm, archive: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    job = slurm.submit(
        SCRIPT,
        build_arguments(archive, tmp_path / "dataset"),
        folder=tmp_path,
        options=["--nodes=2", "--cpus-per-task=1", "--mem-per-cpu=1G", "--time=10"],
        variables={
            "INTERFACE": "lo",
            "CONTAINER": str(stand_in_container(tmp_path)),
            "PATH": PATH,
        },
    )
    assert job.await_end(200) == "COMPLETED", job.describe()
    assert tree_bytes(tmp_path / "dataset") == expected
    # The scheduler and the command on the first node, workers on both.
    assert job.output.read_text().count("inside: ") == 4
    assert not list(tmp_path.glob(".dask-scheduler*"))

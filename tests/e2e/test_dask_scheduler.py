"""A Dask cluster that was started beforehand, as on a cluster's nodes, does the build."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.archive_fixture import build, make_archive, tree_bytes


@contextmanager
def dask(*arguments: str | Path, folder: Path, python_path: str = "") -> Iterator[None]:
    environment = os.environ | ({"PYTHONPATH": python_path} if python_path else {})
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    with (folder / "dask.log").open("ab") as output:
        # Not from the checkout, which Python would take the package from.
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def scheduler(folder: Path) -> Iterator[Path]:
    file = folder / "scheduler.json"
    place = ("--scheduler-file", file, "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    with dask("scheduler", *place, folder=folder):
        deadline = time.monotonic() + 90
        while not file.exists():
            assert time.monotonic() < deadline, (folder / "dask.log").read_text()
            time.sleep(0.1)
        yield file


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("v2") / "archive", "v2")


def build_there(archive: Path, out: Path, file: Path) -> subprocess.CompletedProcess[str]:
    sources = ["--s2", archive / "BigEarthNet-S2", "--s1", archive / "BigEarthNet-S1"]
    sources += [part for table in archive.glob("*.parquet") for part in ("--metadata", table)]
    arguments = ["build-shards", *sources, "--out", out, "--shard-mb", "1"]
    command = [sys.executable, "-m", "bigearth_prep", *arguments, "--scheduler-file", file]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=200
    )


def test_a_scheduler_file_leads_to_the_workers_and_the_bytes_are_the_same(
    archive: Path, tmp_path: Path
) -> None:
    place = ("--nthreads", "1", "--local-directory", tmp_path / "spill", "--no-dashboard")
    with scheduler(tmp_path) as file:
        worker = ("worker", "--scheduler-file", file, *place)
        with dask(*worker, folder=tmp_path), dask(*worker, folder=tmp_path):
            result = build_there(archive, tmp_path / "there", file)
    assert result.returncode == 0, result.stderr
    build(archive, tmp_path / "here")
    assert tree_bytes(tmp_path / "there") == tree_bytes(tmp_path / "here")


@pytest.mark.parametrize(("holds", "found"), [("", "no bigearth_prep"), ("0.0.9", "0.0.9")])
def test_workers_of_another_environment_are_named(
    holds: str, found: str, archive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "bigearth_prep"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(f"__version__ = '{holds}'\n" if holds else "")
    with scheduler(tmp_path) as file:
        worker = ("worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard")
        with dask(*worker, folder=tmp_path, python_path=str(other.parent)):
            result = build_there(archive, tmp_path / "there", file)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: tcp://127.0.0.1:")
    assert found in last
    assert "on every node" in last
    assert "Traceback" not in result.stderr

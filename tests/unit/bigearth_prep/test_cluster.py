"""Where work runs: one place, and a clear word when it cannot."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import dask
import pytest
from distributed import Client, Future, KilledWorker

from bigearth_prep.cli_options import cluster_config
from bigearth_prep.cluster import ClusterConfig, R, T, _guarded, _runner_of, open_cluster
from bigearth_prep.errors import PrepError
from bigearth_prep.slurm import SlurmConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "tcp://a:1", "slurm": SlurmConfig()}, "give --scheduler or --slurm"),
        ({"scheduler": "tcp://a:1", "scheduler_file": Path("f")}, "or --scheduler-file, not both"),
        ({"workers": 0, "slurm": SlurmConfig()}, "--workers 0 asks for none"),
        ({"workers": -1}, "must not be negative"),
        ({"workers": 0, "report": Path("r.html")}, "--report needs Dask workers"),
    ],
)
def test_places_that_contradict_each_other_are_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slurm", "text", "message"),
    [
        (False, "cores = 1", "--slurm-config goes with --slurm"),
        (True, "core = 1", "unknown key 'core'"),
    ],
)
def test_a_configuration_of_jobs_needs_jobs_and_known_keys(
    slurm: bool,  # noqa: FBT001 (a case)
    text: str,
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "slurm.toml"
    path.write_text(text)
    options = {"workers": 2, "scheduler": None, "scheduler_file": None}
    with pytest.raises(click.UsageError, match=message):
        cluster_config(options | {"slurm": slurm, "slurm_config": path})


def test_a_worker_that_came_later_and_lacks_a_package_is_one_message() -> None:
    def run(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        yield from map(function, tasks)
        raise ModuleNotFoundError("No module named 'rasterio'", name="rasterio")

    results = _guarded(run)(str, [1])
    assert next(results) == "1"
    with pytest.raises(PrepError, match="a worker lacks the package rasterio; install version"):
        next(results)


def test_this_process_runs_tasks_in_order() -> None:
    with open_cluster(ClusterConfig(workers=0)) as run:
        assert list(run(str, [1, 2])) == ["1", "2"]


def results_on_threads(workers: int, function: Callable[[int], int]) -> list[int]:
    """Of one task, on workers of Dask in this process; an error if they do not come."""
    client = Client(
        n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None
    )
    waiting = ThreadPoolExecutor(1)
    try:
        return waiting.submit(lambda: list(_runner_of(client)(function, [1]))).result(timeout=20)
    finally:
        client.close()
        waiting.shutdown()


def fail_unreadably(task: int) -> int:
    """Raises with a traceback that cannot be sent, which Dask's client stumbles over."""
    space = {"__file__": threading.Lock(), "task": task}
    exec("def fail():\n    raise ValueError(f'task {task} broke')\nfail()", space)
    return task


def test_an_exception_that_cannot_be_sent_ends_the_tasks_with_one_message() -> None:
    with pytest.raises(PrepError, match=r"fail_unreadably failed .*ValueError: task 1 broke"):
        results_on_threads(1, fail_unreadably)


@pytest.mark.parametrize("deaths", [5, 6])
def test_a_task_whose_worker_dies_is_given_up_at_the_sixth_death_that_dask_tells_of(
    deaths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result_of = Future.result
    told: list[object] = []

    def deadly(future: "Future[int]") -> object:
        if len(told) == deaths:
            return result_of(future)
        told.append(future.key)
        raise KilledWorker(future.key, None, 0)  # type: ignore[arg-type]

    monkeypatch.setattr(Future, "result", deadly)
    if deaths == 5:
        assert results_on_threads(1, abs) == [1]
    else:
        with pytest.raises(PrepError, match="died again and again, last on abs-"):
            results_on_threads(1, abs)
    assert len(set(told)) == deaths


def test_tasks_that_no_worker_comes_for_end_with_one_message() -> None:
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "1s"}),
        pytest.raises(PrepError, match=r"no worker process for 1 s; .*run the same command"),
    ):
        results_on_threads(0, fail_unreadably)

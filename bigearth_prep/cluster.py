"""Where tasks run: local processes, a Dask cluster that is there or that Slurm starts, or here.

The only module that speaks Dask, with `slurm`.
"""

import itertools
import logging
import multiprocessing
import os
import pydoc
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from bigearth_prep.errors import PrepError
from bigearth_prep.slurm import SlurmConfig, slurm_client
from bigearth_prep.task_failure import TaskFailure, attempt
from bigearth_prep.version import __version__
from bigearth_prep.whole_file import whole_file

log = logging.getLogger(__name__)

_MOST_LOSSES = 5
"""How often Dask may give a task up for lost with its worker before it is given up here too.

Tasks of a build count their own tries, and end with a better message than Dask has."""

_SAME_PACKAGE = (
    f"install version {__version__} on every node, in the same environment or container, and "
    "start the workers again"
)

_FEW_LONG_TASKS = {
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Dask's own settings are for many short tasks on many cores: it watches its event loops so
closely that two cores lose a twentieth (idle, 11 % of one; 3 % so)."""

_WORKERS_COME_BACK = {
    "distributed.deploy.lost-worker-timeout": "365 days",
    "distributed.scheduler.no-workers-timeout": "10 minutes",
}
"""Whoever started a local worker starts it again when it dies. Dask gives it up where it is not
there 15 s after a death, on a busy machine or in another death, and waits for ever for the last."""

T = TypeVar("T")
R = TypeVar("R")


@runtime_checkable
class Runner(Protocol):
    """Runs a function on many tasks and yields results as they come, in any order."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Results in order of completion; the first failure ends the iteration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """Where a build runs; it never changes what is built."""

    workers: int | None = None
    """Local processes; by default one per core this process may use; 0 runs in this process.

    With `slurm`, worker processes over all jobs; by default those of one job.
    """

    scheduler: str | None = None
    """Address of a Dask scheduler, such as `tcp://node1:8786`."""

    scheduler_file: Path | None = None
    """File in which a Dask scheduler has written its address."""

    slurm: SlurmConfig | None = None
    """What a Slurm job of workers asks for; None starts no jobs."""

    report: Path | None = None
    """HTML file for Dask's performance report: task stream, worker profiles, transfers."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must not be negative, got {self.workers}")
        places = ("--scheduler", "--scheduler-file", "--slurm")
        where = (self.scheduler, self.scheduler_file, self.slurm)
        given = [name for name, place in zip(places, where, strict=True) if place is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not both")
        if self.slurm and self.workers == 0:
            raise ValueError("--slurm starts workers, and --workers 0 asks for none")
        if self.report and self.workers == 0 and not given:
            raise ValueError("--report needs Dask workers, and --workers 0 has none")


def open_cluster(config: ClusterConfig) -> AbstractContextManager[Runner]:
    """A runner of tasks for the time of the block."""
    if config.scheduler or config.scheduler_file:
        return _existing_cluster(config)
    if config.slurm:
        return _slurm_cluster(config.slurm, config)
    if config.workers == 0:
        return _this_process()
    return _local_cluster(config.workers or len(os.sched_getaffinity(0)), config.report)


@contextmanager
def _this_process() -> Iterator[Runner]:
    def run(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        return map(function, tasks)

    yield run


@contextmanager
def _local_cluster(workers: int, report: Path | None) -> Iterator[Runner]:
    import dask
    from distributed import Client

    with (
        dask.config.set(_FEW_LONG_TASKS | _WORKERS_COME_BACK),
        dask.config.set({"distributed.worker.profile.enabled": report is not None}),
        tempfile.TemporaryDirectory(prefix="bigearth-prep-") as scratch,
        _start_workers(workers, scratch) as cluster,
        Client(cluster) as client,
        _performance_report(report),
    ):
        log.info("%d worker processes, Dask dashboard at %s", workers, client.dashboard_link)
        yield _runner_of(client)


def _start_workers(workers: int, scratch: str) -> Any:  # noqa: ANN401 (distributed has no types)
    from distributed import LocalCluster

    try:
        # What Dask needs first of all, and without which it may wait for its workers for ever.
        multiprocessing.get_context("spawn").Lock()
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=":0",
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        )
    except (OSError, RuntimeError) as error:
        raise PrepError(
            f"worker processes cannot be started ({error}); check that /dev/shm can be written and "
            "that localhost answers, or use --workers 0, which needs neither"
        ) from error


@contextmanager
def _existing_cluster(config: ClusterConfig) -> Iterator[Runner]:
    from distributed import Client

    where = config.scheduler or f"the scheduler of {config.scheduler_file}"
    try:
        client = Client(
            address=config.scheduler,
            scheduler_file=str(config.scheduler_file) if config.scheduler_file else None,
        )
    except (OSError, ValueError, TimeoutError) as error:
        raise PrepError(f"{where} does not answer ({error}); is dask scheduler running?") from error
    with client, _performance_report(config.report):
        log.info("on %s, Dask dashboard at %s", where, client.dashboard_link)
        _await_worker(client, where)
        _require_package(client)
        yield _guarded(_runner_of(client))


@contextmanager
def _slurm_cluster(slurm: SlurmConfig, config: ClusterConfig) -> Iterator[Runner]:
    with slurm_client(slurm, config.workers) as client, _performance_report(config.report):
        _require_package(client)
        yield _guarded(_runner_of(client))


def _await_worker(client: Any, where: str) -> None:  # noqa: ANN401 (distributed has no types)
    """Return once there is a worker: whoever started the scheduler may still be starting them."""
    for patience_s in itertools.chain([5], itertools.repeat(60)):
        try:
            client.wait_for_workers(1, timeout=patience_s)
        except TimeoutError:
            log.info("%s has no workers; waiting for one: dask worker", where)
        else:
            return


def _require_package(client: Any) -> None:  # noqa: ANN401 (distributed has no types)
    """Refuse a cluster whose processes lack this package, or have another version of it."""
    # A function of the standard library: one of ours could not be sent to who lacks the package.
    ask = (pydoc.locate, "bigearth_prep.__version__")
    found = {"the scheduler": client.run_on_scheduler(*ask), **client.run(*ask)}
    unfit = {where: version for where, version in found.items() if version != __version__}
    if unfit:
        listing = "; ".join(
            f"{where} has {f'bigearth_prep {version}' if version else 'no bigearth_prep'}"
            for where, version in unfit.items()
        )
        raise PrepError(f"{listing}; {_SAME_PACKAGE}")


def _guarded(run: Runner) -> Runner:
    """The same runner, with a clear message when a worker that came later lacks the package."""

    def guarded(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        try:
            yield from run(function, tasks)
        except ModuleNotFoundError as error:
            raise PrepError(f"a worker lacks the package {error.name}; {_SAME_PACKAGE}") from error

    return guarded


@contextmanager
def _performance_report(path: Path | None) -> Iterator[None]:
    """Writes what Dask saw of the block, when it ends well."""
    if path is None:
        yield
        return
    from distributed import performance_report

    with whole_file(path) as partial, performance_report(filename=partial):
        yield
    log.info("performance report: %s", path)


def _runner_of(client: Any) -> Runner:  # noqa: ANN401 (distributed has no types)
    from distributed import KilledWorker, as_completed

    def run(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        def submit(task: T) -> Any:  # noqa: ANN401 (distributed has no types)
            key = f"{function.__name__}-{uuid.uuid4()}"
            return client.submit(attempt, function, task, key=key, pure=False)

        running = {submit(task): (task, 0) for task in tasks}
        results = as_completed(running)
        try:
            for future in results:
                # Let go of here, so that workers need not keep its result.
                task, losses = running.pop(future)
                try:
                    with _faults_of_dask(client):
                        result = future.result()
                except KilledWorker as error:
                    if losses == _MOST_LOSSES:
                        raise _died_again(error) from error
                    again = submit(task)
                    running[again] = (task, losses + 1)
                    results.add(again)
                    continue
                if isinstance(result, TaskFailure):
                    raise result.as_error()
                yield result
        finally:
            client.cancel(list(running))

    return run


@contextmanager
def _faults_of_dask(client: Any) -> Iterator[None]:  # noqa: ANN401 (distributed has no types)
    """Makes one message of what keeps Dask from giving a result."""
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import NoValidWorkerError, NoWorkerError

    try:
        yield
    except (NoWorkerError, NoValidWorkerError) as error:
        raise PrepError(
            f"there has been no worker process for {error.timeout:.0f} s; look for an "
            "out-of-memory kill, see that workers start, and run the same command to go on"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise PrepError(
            f"the Dask scheduler is gone ({client.scheduler.address}); what is finished is "
            "kept: start scheduler and workers again, and run the same command to go on"
        ) from error


def _died_again(error: Any) -> PrepError:  # noqa: ANN401 (distributed has no types)
    return PrepError(
        f"worker processes died again and again, last on {error.task}; look for an out-of-memory "
        "kill, use fewer --workers or give them more memory, and run again"
    )

"""Dask workers that Slurm starts: what their jobs ask for, and how they are kept running."""

import logging
import math
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bigearth_prep.errors import PrepError

log = logging.getLogger(__name__)

_SMALLEST_JOB = {"cores": 1, "memory": "2 GB"}
"""Where neither SlurmConfig nor Dask's own configuration says: a worker stays below 1 GiB."""

_LIFETIME_SHARE = 0.9
"""Of the wall time: then a worker hands over what it has and ends before Slurm ends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmConfig:
    """What one job of workers asks for, by the names that dask-jobqueue gives its settings.

    What is None is taken from Dask's own configuration (`~/.config/dask/jobqueue.yaml`, or the
    variables `DASK_JOBQUEUE__SLURM__…`), and then from Slurm's defaults.
    """

    cores: int | None = None
    """Cores of a job; by default one, so that it fits anywhere soon."""

    memory: str | None = None
    """Memory of a job, such as `16 GB`; by default 2 GB."""

    processes: int | None = None
    """Worker processes in a job; by default one per core."""

    walltime: str | None = None
    """Time limit of a job, as Slurm writes it; a new job takes over from one that ends."""

    queue: str | None = None
    """Slurm's partition."""

    account: str | None = None
    """Whom Slurm charges."""

    interface: str | None = None
    """Network interface between the nodes, such as `ib0`."""

    local_directory: str = "${TMPDIR:-/tmp}"
    """Where workers spill to: a disk of the node. The job's shell fills in variables."""

    log_directory: str = "slurm-logs"
    """Where the jobs' output goes: a folder that all nodes see."""

    python: str | None = None
    """How a job starts Python; by default the one that runs this, by its path. In a container:
    `apptainer exec --bind /scratch prep.sif python`."""

    job_script_prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as `module load …`."""

    job_extra_directives: tuple[str, ...] = ()
    """Further options of sbatch, such as `--constraint=ssd`."""

    job_directives_skip: tuple[str, ...] = ()
    """Options to leave out, such as `--mem` where a site refuses it."""

    def __post_init__(self) -> None:
        for name in ("cores", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")


def read_slurm_config(path: Path) -> SlurmConfig:
    """The configuration in a TOML file, whose keys are the fields' names, dashes allowed.

    Raises:
        ValueError: the file is not TOML, or a key or a value is none of them.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    known = {field.name: str(field.type) for field in fields(SlurmConfig)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ValueError(f"{path}: unknown key {key!r}; known are {', '.join(known)}")
        kind = next(kind for kind in (int, tuple, str) if kind.__name__ in known[name])
        is_texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
        if not (is_texts if kind is tuple else type(value) is kind):
            wanted = "a list of strings" if kind is tuple else {int: "a number", str: "text"}[kind]
            raise ValueError(f"{path}: {key} must be {wanted}, got {value!r}")
        values[name] = tuple(value) if kind is tuple else value
    return SlurmConfig(**values)


@contextmanager
def slurm_client(config: SlurmConfig, workers: int | None) -> Iterator[Any]:
    """A Dask client of workers in Slurm jobs, at least one of which has come.

    Args:
        config: What a job asks for.
        workers: Worker processes over all jobs; by default those of one job.

    Raises:
        PrepError: Slurm or dask-jobqueue is not there or refuses, or every job ended before its
            worker came.
    """
    if shutil.which("sbatch") is None:
        raise PrepError("--slurm: there is no sbatch here; start this where jobs are submitted")
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise PrepError("--slurm needs dask-jobqueue: pip install 'bigearth-dinomm[slurm]'") from (
            error
        )
    from distributed import Client

    settings = job_settings(config)
    jobs = math.ceil((workers or settings["processes"]) / settings["processes"])
    try:
        cluster = SLURMCluster(**settings, scheduler_options={"dashboard_address": ":0"})
    except (OSError, RuntimeError, ValueError) as error:
        raise PrepError(f"--slurm: Dask cannot start ({error}); check --slurm-config") from error
    with cluster, Client(cluster) as client:
        # Fixed, yet adapted: only so is a job that Slurm ended replaced by a new one.
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        log.info("%d Slurm jobs asked for, Dask dashboard at %s", jobs, client.dashboard_link)
        _await_worker(cluster, client, Path(config.log_directory))
        yield client


def job_settings(config: SlurmConfig) -> dict[str, Any]:
    """The arguments of dask-jobqueue's `SLURMCluster`; what is said nowhere is left out."""
    import dask

    def configured(name: str) -> Any:  # noqa: ANN401 (whatever the user's file holds)
        return dask.config.get(f"jobqueue.slurm.{name}", None)

    given = {name: value for name, value in asdict(config).items() if value not in (None, ())}
    settings = {
        name: list(value) if isinstance(value, tuple) else value for name, value in given.items()
    }
    for name, smallest in _SMALLEST_JOB.items():
        settings.setdefault(name, configured(name) or smallest)
    settings.setdefault("processes", configured("processes") or settings["cores"])
    walltime_s = seconds_of(str(settings.get("walltime") or configured("walltime") or "00:30:00"))
    lifetime_s = int(_LIFETIME_SHARE * walltime_s)
    stagger_s = int((1 - _LIFETIME_SHARE) / 2 * walltime_s)
    settings["worker_extra_args"] = [
        *(configured("worker-extra-args") or ()),
        *("--lifetime", f"{lifetime_s}s", "--lifetime-stagger", f"{stagger_s}s"),
    ]
    return settings


def seconds_of(walltime: str) -> int:
    """The seconds of a time limit as Slurm writes it: `30`, `30:00`, `4:00:00`, `1-12`, `1-0:30`.

    Raises:
        ValueError: it is none.
    """
    days, dash, clock = walltime.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        whole_days = int(days) if dash else 0
    except ValueError as error:
        raise ValueError(f"walltime {walltime!r} is not one of Slurm's, such as 4:00:00") from error
    # With days, the clock begins with hours; without, one or two parts begin with minutes.
    hours_first = parts if dash or len(parts) == 3 else [0, *parts]
    hours, minutes, seconds = (*hours_first, 0, 0)[:3]
    return ((whole_days * 24 + hours) * 60 + minutes) * 60 + seconds


def _await_worker(cluster: Any, client: Any, logs: Path) -> None:  # noqa: ANN401 (no types)
    """Return once a worker has come, however long Slurm lets its job wait."""
    waited = 0
    while True:
        try:
            client.wait_for_workers(1, timeout=5)
        except TimeoutError:
            waited += 1
        else:
            return
        jobs = {str(worker.job_id) for worker in cluster.workers.values() if worker.job_id}
        if jobs and not jobs & _jobs_in_queue():
            raise PrepError(
                f"every worker job ended before its worker came ({', '.join(sorted(jobs))}); "
                f"the last words in {logs}: {_last_words(logs)}"
            )
        if waited % 12 == 1:
            log.info("waiting for Slurm to start a worker job; squeue --me shows them")


def _jobs_in_queue() -> set[str]:
    squeue = shutil.which("squeue") or "squeue"
    listing = subprocess.run(  # noqa: S603
        [squeue, "--me", "--noheader", "--format=%i"], capture_output=True, text=True, check=False
    )
    if listing.returncode:
        raise PrepError(f"squeue does not answer: {listing.stderr.strip()}; is Slurm up?")
    return set(listing.stdout.split())


def _last_words(logs: Path) -> str:
    files = sorted(logs.glob("*.err"), key=lambda path: path.stat().st_mtime)
    lines = files[-1].read_text(encoding="utf-8", errors="replace").split("\n") if files else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "none")

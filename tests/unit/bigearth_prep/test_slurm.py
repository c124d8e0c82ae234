"""What a job of workers asks for: from a file, from Dask's configuration, or the smallest."""

from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.slurm import (
    SlurmConfig,
    job_settings,
    read_slurm_config,
    seconds_of,
    slurm_client,
)


@pytest.fixture(autouse=True)
def no_configuration_of_the_user() -> Iterator[None]:
    with dask.config.set({"jobqueue": {}}):
        yield


def write(folder: Path, text: str) -> Path:
    path = folder / "slurm.toml"
    path.write_text(text)
    return path


def test_a_file_names_the_settings_with_dashes_or_underscores(tmp_path: Path) -> None:
    text = 'cores = 4\nlocal-directory = "/fast"\njob_script_prologue = ["module load Python"]\n'
    config = read_slurm_config(write(tmp_path, text))
    prologue = ("module load Python",)
    assert config == SlurmConfig(cores=4, local_directory="/fast", job_script_prologue=prologue)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core = 4", "unknown key 'core'; known are cores, memory"),
        ('cores = "4"', "cores must be a number, got '4'"),
        ("cores = true", "cores must be a number, got True"),
        ("memory = 4", "memory must be text, got 4"),
        ("job-extra-directives = '-C ssd'", "must be a list of strings, got '-C ssd'"),
        ("cores = 0", "cores must be positive, got 0"),
        ("cores", "is not valid TOML"),
    ],
)
def test_what_is_none_of_the_settings_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        read_slurm_config(write(tmp_path, text))


def test_nothing_said_is_the_smallest_job() -> None:
    settings = job_settings(SlurmConfig())
    expected = {"cores": 1, "memory": "2 GB", "processes": 1}
    assert {name: settings[name] for name in expected} == expected
    assert "queue" not in settings
    # Half an hour is dask-jobqueue's default.
    lifetime = ["--lifetime", "1620s", "--lifetime-stagger", "89s"]
    assert settings["worker_extra_args"] == lifetime


def test_the_users_own_dask_configuration_counts_where_the_file_is_silent() -> None:
    own = {"cores": 8, "memory": "64 GB", "walltime": "10:00", "worker-extra-args": ["--no-nanny"]}
    with dask.config.set({"jobqueue.slurm": own}):
        settings = job_settings(SlurmConfig(memory="16 GB"))
    assert (settings["cores"], settings["memory"], settings["processes"]) == (8, "16 GB", 8)
    assert settings["worker_extra_args"][:3] == ["--no-nanny", "--lifetime", "540s"]


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("4:00:00", 14_400),
        ("1-12", 129_600),
        ("1-0:30", 88_200),
        ("2-01:02:03", 176_523),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(walltime: str, seconds: int) -> None:
    assert seconds_of(walltime) == seconds


def test_a_worker_ends_before_its_job_whatever_the_stagger() -> None:
    for walltime in ("00:05:00", "2-00"):
        _, lifetime, _, stagger = job_settings(SlurmConfig(walltime=walltime))["worker_extra_args"]
        assert int(lifetime[:-1]) + int(stagger[:-1]) < seconds_of(walltime)


def test_a_time_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="walltime 'two hours' is not one of Slurm's"):
        seconds_of("two hours")


def test_a_machine_without_slurm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PrepError, match="there is no sbatch here"), slurm_client(SlurmConfig(), 1):
        pass

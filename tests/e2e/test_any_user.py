"""The commands under what clusters and containers give: no home, no name, nothing else to write."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TINY_NETWORK = [
    *("--set", "model.depth=1", "--set", "model.width=24", "--set", "model.heads=2"),
    *("--set", "head.hidden=16", "--set", "head.bottleneck=8", "--set", "head.prototypes=32"),
    *("--set", "views.crops.global_px=32", "--set", "views.crops.local_px=16"),
    *("--set", "sampling.global_batch=8"),
]

BUILD = [
    *("build-shards", "--s2", "archive/BigEarthNet-S2", "--s1", "archive/BigEarthNet-S1"),
    *("--metadata", "archive/metadata.parquet", "--out", "dataset", "--report", "report.html"),
]

PREPARATION = [
    ["bigearth_prep", "make-archive", "archive", "--pairs", "40"],
    ["bigearth_prep", *BUILD, "--workers", "1"],
    ["bigearth_prep", "verify", "dataset", "--workers", "0"],
    ["bigearth_prep", "inspect", "dataset", "--html", "dataset.html"],
]

TRAINING = [
    ["dinomm_train", "pretrain", "dataset", "--out", "run", "--max-steps", "2", *TINY_NETWORK],
    ["dinomm_train", "evaluate", "run", "dataset", "--out", "scores", "--protocol", "knn"],
]


def run(
    commands: Sequence[Sequence[str]],
    folder: Path,
    environment: dict[str, str],
    wrapper: Sequence[str] = (),
) -> None:
    for module, *arguments in commands:
        result = subprocess.run(
            [*wrapper, sys.executable, "-m", module, *arguments],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, (arguments, result.stderr)


@pytest.mark.slow
def test_a_home_folder_stays_as_it_is_and_files_go_to_tmpdir(tmp_path: Path) -> None:
    home, temporary, work = (tmp_path / name for name in ("home", "temporary", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    run(PREPARATION, work, {"HOME": str(home), "TMPDIR": str(temporary)})
    # What importing this one writes by itself, when the build is sent to Slurm.
    script = (
        "import os; from bigearth_prep.caches import keep_caches_out_of_home;"
        "keep_caches_out_of_home(os.environ); import dask_jobqueue"
    )
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert list(home.iterdir()) == []
    found = {path.name for path in temporary.iterdir()}
    assert found <= {f"bigearth-dinomm-{os.getuid()}", "dask-scratch-space"}


def test_workers_that_cannot_start_are_one_message(tmp_path: Path) -> None:
    run(PREPARATION[:1], tmp_path, {})
    # A sitecustomize takes away what a node without /dev/shm does not have.
    (tmp_path / "sitecustomize.py").write_text(
        "import multiprocessing.synchronize as s\n"
        "def refuse(*_, **__): raise PermissionError(13, 'Permission denied')\n"
        "s.SemLock.__init__ = refuse\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = subprocess.run(
        [sys.executable, "-m", "bigearth_prep", *BUILD, "--workers", "1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "worker processes cannot be started" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_home_that_cannot_be_written_will_do(tmp_path: Path) -> None:
    run([*PREPARATION, *TRAINING], tmp_path, {"HOME": "/proc/none", "TMPDIR": str(tmp_path)})


def sandbox(folder: Path) -> list[str]:
    """A read-only root, no network, a user without a name; only the folder and /tmp take files."""
    unknown = ["--reuid", "54321", "--regid", "65432", "--clear-groups", "--no-new-privs"]
    # Python itself may lie where only its owner looks; reading is allowed, writing is not.
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    capabilities = ("CAP_SETUID", "CAP_SETGID", "CAP_DAC_READ_SEARCH")
    return [
        *("bwrap", "--die-with-parent", "--unshare-net", "--ro-bind", "/", "/"),
        *("--dev", "/dev", "--proc", "/proc"),
        *("--perms", "1777", "--tmpfs", "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp"),
        # The checkout may lie in /tmp itself.
        *("--ro-bind", str(ROOT), str(ROOT), "--ro-bind", sys.prefix, sys.prefix),
        *("--bind", str(folder), str(folder), "--chdir", str(folder)),
        *(part for name in capabilities for part in ("--cap-add", name)),
        *("setpriv", *unknown, *reading),
    ]


@pytest.mark.slow
def test_a_user_without_a_name_on_a_read_only_root_without_a_network(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not (shutil.which("bwrap") and shutil.which("setpriv")):
        pytest.skip("needs root, bubblewrap and setpriv to become such a user")
    tmp_path.chmod(0o777)
    script = (
        "import os, pathlib, pwd\n"
        "assert os.getuid() not in [user.pw_uid for user in pwd.getpwall()]\n"
        f"for place in ('/', '/usr', '{ROOT}'):\n"
        "    try:\n"
        "        (pathlib.Path(place) / 'written').touch()\n"
        "    except OSError:\n"
        "        continue\n"
        "    raise SystemExit(f'{place} takes files')\n"
    )
    wrapper = sandbox(tmp_path)
    subprocess.run([*wrapper, sys.executable, "-c", script], env={}, check=True)
    run([*PREPARATION, *TRAINING], tmp_path, {}, wrapper)
    assert (tmp_path / "scores" / "scores.png").exists()

"""Real processes that run `dinomm-train`, without the seconds that importing torch takes each.

One process imports once and forks for each command; a fork is a process of its own with its own
signals, and runs what the command line runs, or a function of a test.
"""

import importlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinomm_train.config import RunConfig
from dinomm_train.config_text import config_to_toml

SIGNAL_WHILE_IMPORTING = """
import os, runpy, signal, sys
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
class Signalling:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Signalling())
"""
"""Begin of a script whose process sends itself a signal as soon as the command line is imported."""

_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


@dataclass
class Process:
    """A command that runs, or has ended."""

    pid: int
    output: Path
    errors: Path
    forks: "Forks"
    returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Send it, if the process is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, or minus the signal that killed it; None as long as it runs."""
        if self.returncode is None:
            self.returncode = self.forks.poll(self.pid)
        return self.returncode

    def wait(self, timeout_s: float = 120) -> int:
        """The exit code, once there is one."""
        deadline = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"still running: {self.errors.read_text()}"
            time.sleep(0.01)
        return code

    def wait_until_listening(self) -> None:
        """Return when the process holds signals back, as the command does from its start."""
        while self.poll() is None and not is_listening(self.pid):
            time.sleep(0.001)


def is_listening(pid: int) -> bool:
    """Whether the process handles SIGTERM and holds it back: threads that start do the latter."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s+(\w+)$", status, re.MULTILINE)
    return all(int(mask, 16) & _SIGTERM_BIT for mask in masks)


class Forks:
    """The process that has imported everything, and forks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-c", "from tests.run_processes import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        assert self._server.stdout is not None
        self._server.stdout.close()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
        """The command, started with these variables beside those that are there."""
        return self._start({"arguments": list(arguments)}, environment)

    def call(self, function: Callable[[], None], environment: Mapping[str, str]) -> Process:
        """A process that calls a module's function and ends with 0, with these variables."""
        return self._start({"call": [function.__module__, function.__name__]}, environment)

    def _start(self, what: Mapping[str, list[str]], environment: Mapping[str, str]) -> Process:
        self._count += 1
        output, errors = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        request = {
            "environment": dict(environment),
            "output": str(output),
            "errors": str(errors),
        }
        return Process(self._ask({**request, **what}), output, errors, self)

    def poll(self, pid: int) -> int | None:
        """The exit code of a fork."""
        code = self._ask({"poll": pid})
        return None if code == _RUNNING else code

    def _ask(self, request: Mapping[str, object]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


_RUNNING = 1_000


@contextmanager
def forks_in(folder: Path) -> Iterator[Forks]:
    """Forks whose outputs lie in this folder."""
    forks = Forks(folder)
    try:
        yield forks
    finally:
        forks.close()


def serve() -> None:
    """Answer requests until there are no more; what still runs then is killed."""
    import dinomm_train.models.fully_sharded  # (the seconds that are saved)
    import dinomm_train.trainer  # noqa: F401

    running: set[int] = set()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            _reap(running, ended)
            answer = ended.get(request["poll"], _RUNNING)
        else:
            answer = _fork(request)
            running.add(answer)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _reap(running: set[int], ended: dict[int, int]) -> None:
    for pid in tuple(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            running.discard(pid)
            ended[pid] = os.waitstatus_to_exitcode(status)


def _fork(request: Mapping[str, object]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for number, name in ((1, "output"), (2, "errors")):
            descriptor = os.open(str(request[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
        os.environ.update(request["environment"])  # type: ignore[call-overload]
        if limit := os.environ.get("DINOMM_TEST_FILE_BYTES"):
            # A file that cannot grow is what a full disk looks like.
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
        _run(request)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 (it must not come back to the server's loop)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(request: Mapping[str, Any]) -> None:
    if "call" in request:
        module, function = request["call"]
        getattr(importlib.import_module(module), function)()
        return
    sys.argv = ["dinomm-train", *request["arguments"]]
    from dinomm_train.cli import main

    main()


def pretrain_arguments(dataset: str | Path, run: Path, config: RunConfig, *more: str) -> list[str]:
    """The command line of a run with this configuration."""
    file = run.parent / f"{run.name}.toml"
    file.write_text(config_to_toml(config), encoding="utf-8")
    command = ["pretrain", str(dataset), "--out", str(run), "--config", str(file)]
    return [*command, "--device", "cpu", "--threads", "1", "--json", *more]


def places(world: int) -> list[dict[str, str]]:
    """The variables that torchrun sets, for each rank on this machine."""
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])

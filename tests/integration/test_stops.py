"""Runs that are stopped, killed or hang, at any moment: they end well, go on, and lose nothing."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from bigearth_prep.whole_file import xxh3_128_of
from dinomm_train import rendezvous, steady_file
from dinomm_train.cli import main
from dinomm_train.config import HealthConfig, OutputConfig
from dinomm_train.errors import TrainError
from dinomm_train.rendezvous import Launch, call_heeding_signals, meet
from dinomm_train.requeue import REQUEUE_NAME
from dinomm_train.stop_request import StoppedEarly, StopRequest
from tests.integration.test_trainer import TINY, assert_same_weights, run_here, start_ranks, told
from tests.run_processes import (
    SIGNAL_WHILE_IMPORTING,
    Forks,
    Process,
    free_port,
    places,
    pretrain_arguments,
)
from tests.shard_fixture import make_dataset

DRILL = replace(
    TINY,
    model=replace(TINY.model, drop_path=0.0),
    schedule=replace(TINY.schedule, epochs=8, lr=0.001),
    output=OutputConfig(log_every_steps=3, checkpoint_every_steps=2),
    health=HealthConfig(every_steps=5, samples=6, knn_every_epochs=2, knn_bank=9, knn_queries=5),
)
"""24 steps with looks, neighbours and checkpoints in between: about a second."""

LONGEST_S = 1.5
"""Latest moment of a signal, after start-up has begun to heed it."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    return make_dataset(folder, samples={"train": 28, "validation": 8})


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert run_here(dataset, run, DRILL).is_finished
    return run


@pytest.fixture(scope="module")
def undisturbed_pair(forks: Forks, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pair"
    processes = start_ranks(forks, dataset, run, DRILL, 2)
    assert [process.wait() for process in processes] == [0, 0], told(processes)
    return run


def stop_at_random(
    forks: Forks, dataset: Path, run: Path, world: int, rng: random.Random
) -> list[int]:
    """The exit codes after a signal, to one of the ranks or to all, at some moment of a run."""
    processes = start_ranks(forks, dataset, run, DRILL, world)
    for process in processes:
        process.wait_until_listening()
    time.sleep(rng.uniform(0, LONGEST_S))
    number = rng.choice(SIGNALS)
    for process in processes if rng.random() < 0.5 else [rng.choice(processes)]:
        process.send_signal(number)
    codes = [process.wait() for process in processes]
    assert set(codes) in ({0}, {85}), (codes, told(processes))
    return codes


@pytest.mark.parametrize(
    ("world", "signals", "seed"),
    [
        (1, 6, 0),
        (2, 3, 1),
        pytest.param(1, 40, 2, marks=pytest.mark.slow),
        pytest.param(2, 12, 3, marks=pytest.mark.slow),
    ],
)
def test_signals_at_random_moments_cost_no_bit_of_the_final_weights(  # noqa: PLR0917
    world: int,
    signals: int,
    seed: int,
    forks: Forks,
    dataset: Path,
    undisturbed: Path,
    undisturbed_pair: Path,
    tmp_path: Path,
) -> None:
    rng, expected = random.Random(seed), undisturbed if world == 1 else undisturbed_pair
    run, sent = tmp_path / "run-0", 0
    while sent < signals:
        codes = stop_at_random(forks, dataset, run, world, rng)
        sent += 1
        if set(codes) == {0}:
            assert_same_weights(run, expected)
            run = tmp_path / f"run-{sent}"
    processes = start_ranks(forks, dataset, run, DRILL, world)
    assert [process.wait() for process in processes] == [0] * world, told(processes)
    assert_same_weights(run, expected)


@pytest.mark.parametrize(("kills", "seed"), [(6, 0), pytest.param(40, 1, marks=pytest.mark.slow)])
def test_a_process_killed_at_random_moments_comes_to_the_same_weights(
    kills: int, seed: int, forks: Forks, dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    run, killed = tmp_path / "run-0", 0
    while killed < kills:
        process = forks.start(pretrain_arguments(dataset, run, DRILL), {})
        process.wait_until_listening()
        time.sleep(rng.uniform(0, LONGEST_S))
        process.send_signal(signal.SIGKILL)
        killed += 1
        require_whole_checkpoints(run)
        if process.wait() == 0:
            assert_same_weights(run, undisturbed)
            run = tmp_path / f"run-{killed}"
    process = forks.start(pretrain_arguments(dataset, run, DRILL), {})
    assert process.wait() == 0, process.errors.read_text()
    assert_same_weights(run, undisturbed)
    assert not list((run / "checkpoints").glob("*.partial"))


def require_whole_checkpoints(run: Path) -> None:
    """What `latest` lists is there, and whole."""
    latest = run / "checkpoints" / "latest"
    if latest.is_file():
        for record in json.loads(latest.read_text())["checkpoints"]:
            assert xxh3_128_of(latest.parent / record["file"]) == record["xxh3_128"]


def start_endless_pair(forks: Forks, dataset: Path, run: Path, *more: str) -> list[Process]:
    """Two ranks that have saved and go on for hours."""
    endless = replace(DRILL, schedule=replace(DRILL.schedule, epochs=10_000))
    processes = start_ranks(forks, dataset, run, endless, 2, *more)
    wait_for_checkpoint(run, processes)
    return processes


def wait_for_checkpoint(run: Path, processes: list[Process]) -> None:
    deadline = time.monotonic() + 60
    while not (run / "checkpoints" / "latest").is_file():
        assert time.monotonic() < deadline, told(processes)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("lost", "name"),
    [(1, "rank 1 on"), pytest.param(0, "rank 0, or the launcher", marks=pytest.mark.slow)],
)
def test_a_killed_rank_ends_the_run_with_its_name_and_the_command_goes_on_from_there(
    lost: int, name: str, forks: Forks, dataset: Path, undisturbed_pair: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = start_ranks(forks, dataset, run, DRILL, 2)
    wait_for_checkpoint(run, processes)
    processes[lost].send_signal(signal.SIGKILL)
    survivor = processes[1 - lost]
    assert survivor.wait(timeout_s=40) == 1
    said = survivor.errors.read_text()
    assert f"error: {name}" in said
    assert "the same command goes on from its last checkpoint" in said
    assert "Traceback" not in said
    again = start_ranks(forks, dataset, run, DRILL, 2)
    assert [process.wait() for process in again] == [0, 0], told(again)
    assert_same_weights(run, undisturbed_pair)


@pytest.mark.parametrize("stopped", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_stands_still_ends_the_run_with_its_name(
    stopped: int, forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    processes = start_endless_pair(forks, dataset, tmp_path / "run", "--hang-timeout", "3")
    processes[stopped].send_signal(signal.SIGSTOP)
    start_s = time.monotonic()
    try:
        assert processes[1 - stopped].wait(timeout_s=60) == 1
        assert time.monotonic() - start_s > 2
        said = processes[1 - stopped].errors.read_text()
        assert re.search(
            rf"error: rank {stopped}.*(not been heard of|not answered) for \d+ s", said
        )
    finally:
        processes[stopped].send_signal(signal.SIGKILL)
        processes[stopped].wait()


def test_a_rank_whose_shard_breaks_tells_the_others_why_it_ends(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    endless = replace(DRILL, schedule=replace(DRILL.schedule, epochs=10_000))
    first, second = places(2)
    run = tmp_path / "run"
    processes = [
        forks.start(pretrain_arguments(dataset, run, endless), first),
        forks.start(pretrain_arguments(copy, run, endless), second),
    ]
    wait_for_checkpoint(run, processes)
    for shard in (copy / "train").iterdir():
        os.truncate(shard, 0)
    assert [process.wait(timeout_s=60) for process in processes] == [1, 1]
    assert re.search(
        r"error: rank 1 on \S+ ended: shard .*copy/train.* bytes short of a sample",
        processes[0].errors.read_text(),
    )


def test_ranks_that_met_and_cannot_exchange_end_with_the_name_of_what_to_set(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    arguments = pretrain_arguments(dataset, tmp_path / "run", DRILL)
    wrong = {"GLOO_SOCKET_IFNAME": "no-such-one"}
    processes = [forks.start(arguments, place | wrong) for place in places(2)]
    assert [process.wait(timeout_s=30) for process in processes] == [1, 1]
    for rank, process in enumerate(processes):
        said = process.errors.read_text()
        assert f"error: rank {rank} has met the others, but cannot exchange with them" in said
        assert "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME" in said
        assert "Traceback" not in said


@pytest.mark.slow
def test_a_signal_while_the_command_is_imported_ends_it_with_the_word_to_start_again(
    dataset: Path, tmp_path: Path
) -> None:
    script = SIGNAL_WHILE_IMPORTING + "runpy.run_module('dinomm_train', run_name='__main__')"
    run = tmp_path / "run"
    ended = subprocess.run(
        [sys.executable, "-c", script, *pretrain_arguments(dataset, run, DRILL)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 85, ended.stderr
    assert (run / REQUEUE_NAME).exists()


@pytest.mark.slow
def test_a_rank_that_never_comes_is_named_and_a_signal_meanwhile_ends_the_wait(
    forks: Forks, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "START_LIMIT", timedelta(seconds=1))
    launch = Launch(rank=0, world=3, local_rank=0, address="127.0.0.1", port=int(free_port()))
    with StopRequest() as stop, pytest.raises(TrainError, match="of 3 ranks, 1, 2 did not come"):
        meet(launch, stop)
    alone = forks.start(pretrain_arguments(dataset, tmp_path / "run", DRILL), places(2)[0])
    alone.wait_until_listening()
    alone.send_signal(signal.SIGUSR1)
    assert alone.wait(timeout_s=30) == 85
    assert "Traceback" not in alone.errors.read_text()


def test_waiting_for_a_call_that_does_not_return_has_an_end_and_hears_of_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(rendezvous, "START_LIMIT", timedelta(milliseconds=100))
    with StopRequest() as stop, pytest.raises(TimeoutError, match="no answer for 0 s"):
        call_heeding_signals(is_over.wait, stop)
    monkeypatch.setattr(rendezvous, "START_LIMIT", timedelta(minutes=1))
    monkeypatch.setattr(rendezvous, "_GRACE_S", 0.0)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedEarly):
            call_heeding_signals(is_over.wait, stop)
    is_over.set()


def learn_on_a_slow_disk() -> None:
    def reach_the_disk(_: int) -> None:
        time.sleep(0.25)

    sys.argv = ["dinomm-train", *json.loads(os.environ["DINOMM_TEST_ARGUMENTS"])]
    with (
        mock.patch.object(steady_file, "PIECE_BYTES", 30_000),
        mock.patch.object(os, "fdatasync", reach_the_disk),
    ):
        main()


def test_checkpoints_that_take_longer_than_a_hang_end_no_run(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    run, short = tmp_path / "run", replace(DRILL, schedule=replace(DRILL.schedule, epochs=1))
    arguments = pretrain_arguments(dataset, run, short, "--hang-timeout", "3")
    given = {"DINOMM_TEST_ARGUMENTS": json.dumps(arguments)}
    processes = [forks.call(learn_on_a_slow_disk, place | given) for place in places(2)]
    assert [process.wait() for process in processes] == [0, 0], told(processes)
    # Each of both takes more than five seconds.
    assert (run / "checkpoints" / "step-00000003.pt").stat().st_size > 20 * 30_000

"""Ranks that would not learn the same are refused before the first step."""

import logging
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dinomm_train import resume
from dinomm_train.config import RunConfig
from dinomm_train.distributed import join_ranks
from tests.integration.test_trainer import TINY, run_here, told
from tests.run_processes import Forks, Process, places, pretrain_arguments
from tests.shard_fixture import edit_manifest, make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("shards"), samples={"train": 28})


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """The run's folder as each of two nodes sees it."""
    nodes = [tmp_path / f"node-{number}" for number in range(2)]
    for node in nodes:
        node.mkdir()
    return [node / "run" for node in nodes]


def start_pair(
    forks: Forks, datasets: list[Path], runs: list[Path], configs: list[RunConfig]
) -> list[Process]:
    """Two ranks, each with its dataset, run and configuration."""
    return [
        forks.start(pretrain_arguments(dataset, run, config), place)
        for dataset, run, config, place in zip(datasets, runs, configs, places(2), strict=True)
    ]


def test_ranks_with_other_settings_are_told_which(
    forks: Forks, dataset: Path, runs: list[Path]
) -> None:
    wider = replace(TINY, model=replace(TINY.model, width=48))
    processes = start_pair(forks, [dataset] * 2, runs, [TINY, wider])
    assert [process.wait() for process in processes] == [1, 1]
    for process in processes:
        said = process.errors.read_text()
        assert "error: rank 1 was started otherwise than rank 0; give all ranks the same" in said
        assert "Changed: model.width: 24 -> 48" in said
    assert not (runs[0] / "checkpoints").exists()


def test_a_copy_of_the_dataset_with_another_manifest_is_refused_though_its_card_is_the_same(
    forks: Forks, dataset: Path, runs: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    edit_manifest(copy, lambda rows: rows.sort(key=lambda row: row["key"], reverse=True))
    processes = start_pair(forks, [dataset, copy], runs[:1] * 2, [TINY] * 2)
    assert [process.wait() for process in processes] == [1, 1]
    differs = (
        r"error: rank 1 was started otherwise.* dataset: (\w+), manifest (\w+) -> \1, manifest"
    )
    assert len(re.findall(differs, told(processes))) == 2
    assert not (runs[0] / "checkpoints").exists()


def test_ranks_that_keep_finding_different_checkpoints_are_refused(
    forks: Forks, dataset: Path, runs: list[Path]
) -> None:
    run_here(dataset, runs[0], max_steps=1)
    processes = [
        forks.call(look_twice, place | {"RUN_SEEN": str(run)})
        for run, place in zip(runs, places(2), strict=True)
    ]
    for process in processes:
        process.wait()
        differ = (
            r"found different checkpoints in .*: rank 0 step 1 \(\w+\), rank 1 none; put the run"
        )
        assert re.search(differ, process.errors.read_text())


def test_a_node_that_sees_an_old_list_and_new_files_is_waited_for_too(
    forks: Forks, dataset: Path, runs: list[Path]
) -> None:
    run_here(dataset, runs[0], max_steps=1)
    shutil.copytree(runs[0], runs[1])
    stored = next((runs[1] / "checkpoints").glob("*.pt"))
    stored.rename(runs[1] / stored.name)
    first, second = (
        forks.call(look_twice, place | {"RUN_SEEN": str(run)})
        for run, place in zip(runs, places(2), strict=True)
    )
    second.wait()
    assert re.search(
        r"rank 0 step 1 \(\w+\), rank 1 none that is whole \(none of the 1 checkpoints in",
        second.errors.read_text(),
    )
    first.wait()
    assert "looking again" in first.errors.read_text()


def look_twice() -> None:
    logging.basicConfig(level=logging.INFO)
    resume._LOOKS, resume._LOOK_AGAIN_S = 2, 0.0
    with join_ranks("cpu") as ranks:
        resume.find_same_checkpoint(Path(os.environ["RUN_SEEN"]), ranks)


@pytest.mark.slow
def test_a_node_that_sees_a_checkpoint_late_is_waited_for(
    forks: Forks, dataset: Path, runs: list[Path]
) -> None:
    run_here(dataset, runs[0], max_steps=1)
    processes = start_pair(forks, [dataset] * 2, runs, [TINY] * 2)
    for process in processes:
        process.wait_until_listening()
    deadline_s = time.monotonic() + 60
    while "looking again" not in told(processes):
        assert time.monotonic() < deadline_s, told(processes)
        time.sleep(0.01)
    shutil.copytree(runs[0] / "checkpoints", runs[1] / "checkpoints")
    assert [process.wait() for process in processes] == [0, 0], told(processes)
    assert f"continuing {runs[1]} after step 1" in processes[1].errors.read_text()

"""Pretraining from an S3 server and a web server on the loopback, and from a staged copy."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import torch

from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.config import (
    CropConfig,
    HeadConfig,
    HealthConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
    ViewConfig,
)
from dinomm_train.data.download import ExpectedFile, Source
from dinomm_train.data.location import open_dataset
from dinomm_train.data.storage_options import RetryConfig, StorageOptions
from dinomm_train.errors import TrainError
from dinomm_train.hang_watch import HangWatch
from dinomm_train.metrics import read_metrics
from dinomm_train.stop_request import StopRequest
from dinomm_train.trainer import LaunchOptions, pretrain
from tests.integration.test_trainer import start_ranks, told
from tests.run_processes import Forks
from tests.s3_server import ADDRESS, find_at, serve_bucket
from tests.shard_fixture import make_dataset
from tests.unreliable_server import serve

CONFIG = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=1, width=24, heads=2),
    head=HeadConfig(hidden=16, bottleneck=16, prototypes=32),
    views=ViewConfig(crops=CropConfig(global_px=16, local_px=8, local_count=1)),
    schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
    sampling=SamplingConfig(global_batch=4, shuffle="block", block_shards=1),
    health=HealthConfig(samples=0, knn_every_epochs=0),
)
QUICK = RetryConfig(attempts=4, pause_s=0.05, stall_s=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = {"train": 48, "validation": 8}
    return make_dataset(tmp_path_factory.mktemp("shards"), samples=samples, size_px=16)


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("local")
    train(folder, run, StorageOptions())
    return run


def train(
    dataset: str | Path, run: Path, storage: StorageOptions, config: RunConfig = CONFIG
) -> None:
    options = LaunchOptions(device="cpu", threads=1, storage=storage)
    with StopRequest() as stop:
        assert pretrain(dataset, run, config, options, stop).is_finished


def assert_same_weights(run: Path, other: Path) -> None:
    mine, theirs = (read_checkpoint(one).student for one in (run, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The dataset in a bucket of an S3 server of its own."""
    with serve_bucket(folder) as url:
        find_at(url, monkeypatch)
        yield ADDRESS


def test_the_watch_over_a_run_hears_of_shards_that_it_waits_for(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting_for: list[str] = []
    fetch = Source.fetch

    def slow_fetch(
        source: Source, file: ExpectedFile, path: Path, *is_wanted: Callable[[], bool]
    ) -> None:
        time.sleep(0.3)
        fetch(source, file, path, *is_wanted)

    def note_shards(watch: HangWatch) -> None:
        waiting_for.append(watch.doing)

    monkeypatch.setattr(Source, "fetch", slow_fetch)
    monkeypatch.setattr(HangWatch, "note_shards", note_shards)
    storage = StorageOptions(cache_dir=tmp_path / "cache", retry=QUICK)
    train(bucket, tmp_path / "run", storage, replace(CONFIG, health=HealthConfig(every_steps=6)))
    assert "reading the batch of step 0" in waiting_for
    assert "reading and looking at held-out patches after step 6" in waiting_for


def test_a_run_from_s3_learns_what_one_from_the_folder_does(
    bucket: str, folder: Path, expected: Path, tmp_path: Path
) -> None:
    storage = StorageOptions(cache_dir=tmp_path / "cache", retry=QUICK)
    train(bucket, tmp_path / "run", storage)
    assert_same_weights(tmp_path / "run", expected)
    client = boto3.client("s3")
    client.delete_object(Bucket="shards", Key="ben/train/shard-000002.tar")
    client.close()
    # What lies in the cache is not asked for; another cache finds that a shard is gone.
    assert open_dataset(bucket, storage).checksum == open_dataset(folder).checksum
    with pytest.raises(TrainError, match=r"s3://shards/ben/train/shard-000002\.tar is missing"):
        open_dataset(bucket, replace(storage, cache_dir=tmp_path / "other"))


def test_a_run_from_a_web_server_in_trouble_learns_the_same_in_a_small_cache(
    folder: Path, expected: Path, tmp_path: Path
) -> None:
    shard_bytes = (folder / "train/shard-000000.tar").stat().st_size
    storage = StorageOptions(
        cache_dir=tmp_path / "cache", cache_gb=4.5 * shard_bytes / 1e9, retry=QUICK
    )
    with serve(folder) as server:
        server.troubles = {
            "shard-000000.tar": ["fail", "none"],
            "shard-000001.tar": ["truncate", "flip", "none"],
            "shard-000002.tar": ["stall", "none"],
        }
        train(server.url, tmp_path / "run", storage)
    assert_same_weights(tmp_path / "run", expected)
    assert len(list((tmp_path / "cache").rglob("*.tar"))) <= 4


@pytest.mark.slow
def test_two_ranks_learn_the_same_from_an_address_while_their_cache_evicts(
    forks: Forks, folder: Path, tmp_path: Path
) -> None:
    shard_bytes = (folder / "train/shard-000000.tar").stat().st_size
    # Room for three of six shards, and one to spare.
    kept = ("--cache-dir", str(tmp_path / "cache"), "--cache-gb", str(4.5 * shard_bytes / 1e9))
    with serve(folder) as server:
        server.pause_s = 0.02
        started = {
            "local": start_ranks(forks, folder, tmp_path / "local", CONFIG, 2),
            "remote": start_ranks(forks, server.url, tmp_path / "remote", CONFIG, 2, *kept),
        }
        for ranks in started.values():
            assert [rank.wait() for rank in ranks] == [0, 0], told(ranks)
        fetches = [path for path in server.order if path.endswith(".tar")]
    assert len(list((tmp_path / "cache").rglob("*.tar"))) <= 4
    assert len(fetches) > 6
    mine, other = (
        [row["loss"] for row in read_metrics(tmp_path / name)] for name in ("remote", "local")
    )
    assert mine == other
    assert_same_weights(tmp_path / "remote", tmp_path / "local")


@pytest.mark.slow
def test_ranks_of_a_machine_stage_a_folder_once(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _STAGE, str(folder), str(tmp_path / "stage")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    copies = sum(output.count("copied") for output in outputs)
    assert copies == 6
    staged = list((tmp_path / "stage").rglob("*.tar"))
    assert len(staged) == 6
    for path in staged:
        assert path.read_bytes() == (folder / "train" / path.name).read_bytes()


_STAGE = """
import sys
from pathlib import Path
from dinomm_train.config import SamplingConfig
from dinomm_train.data import download
from dinomm_train.data.loader import TrainingBatches
from dinomm_train.data.location import open_dataset
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.data.order import SampleOrder
fetch = download.Source.fetch
def noted(self, file, *arguments):
    print("copied", file.name)
    fetch(self, file, *arguments)
download.Source.fetch = noted
folder, stage = map(Path, sys.argv[1:])
split = open_dataset(folder, StorageOptions(stage_dir=stage)).split("train")
batches = TrainingBatches(split, SampleOrder.of(split, SamplingConfig(global_batch=8)))
assert len(list(batches.epoch(0))) == 6
"""

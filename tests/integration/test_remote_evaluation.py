"""Evaluation, embedding and attention of a dataset that lies elsewhere: the same as of a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import dinomm_train
from dinomm_train.cli import cli
from dinomm_train.errors import TrainError
from tests.checkpoint_fixture import write_run
from tests.s3_server import ADDRESS, find_at, serve_bucket
from tests.shard_fixture import make_dataset
from tests.unreliable_server import UnreliableServer, serve

FAST = ("--device", "cpu", "--bootstrap", 5, "--no-floor", "--sensors", "s2", "--protocol", "knn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = {"train": 40, "validation": 12, "test": 16}
    return make_dataset(tmp_path_factory.mktemp("dataset"), samples=samples)


@pytest.fixture(scope="module")
def shard_bytes(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*.tar"))


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), folder)


@pytest.fixture
def server(folder: Path) -> Iterator[UnreliableServer]:
    with serve(folder) as running:
        yield running


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def scores(*arguments: object) -> dict[str, Any]:
    result = invoke("evaluate", *arguments, *FAST, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def shards_in(folder: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in folder.rglob("*.tar")}


@pytest.mark.slow
def test_scores_of_a_dataset_at_an_address_or_staged_are_those_of_the_folder(
    server: UnreliableServer, folder: Path, run: Path, shard_bytes: int, tmp_path: Path
) -> None:
    local = scores(run, folder, "--out", tmp_path / "local")
    kept = ("--cache-dir", tmp_path / "shards", "--cache-gb", 5.5 * shard_bytes / 1e9)
    remote = scores(run, server.url, "--out", tmp_path / "remote", "--batch-size", 8, *kept)
    assert remote["rows"] == local["rows"]
    assert local["setup"]["dataset"] == str(folder)
    assert remote["setup"].pop("dataset") == server.url
    assert remote["setup"] == {
        name: one for name, one in local["setup"].items() if name != "dataset"
    }
    # Nine shards went through a cache that holds five.
    assert len({path for path in server.served if path.endswith(".tar")}) == 9
    assert len(shards_in(tmp_path / "shards")) <= 5
    staged = scores(run, folder, "--out", tmp_path / "staged", "--stage-dir", tmp_path / "stage")
    assert staged == local
    assert shards_in(tmp_path / "stage") == shards_in(folder)


def test_a_bucket_s_patches_have_the_features_of_the_folder_s(
    folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    with serve_bucket(folder) as url:
        find_at(url, monkeypatch)
        for name, place in (("remote", ADDRESS), ("local", folder)):
            out = tmp_path / f"{name}.parquet"
            result = invoke("embed", run, place, "--out", out, "--cache-dir", tmp_path / "shards")
            assert result.exit_code == 0, result.output
            tables.append(pq.read_table(out))
        assert tables[0].equals(tables[1])
        about = tables[0].schema.metadata
        assert about[b"dataset"] == ADDRESS.encode()
        assert about[b"dataset_checksum"] == tables[1].schema.metadata[b"dataset_checksum"]
        monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "shards"))
        mine, other = (dinomm_train.embed(run, place, sensors="s2") for place in (ADDRESS, folder))
    assert mine[0] == other[0]
    assert np.array_equal(mine[1], other[1])


def test_attention_fetches_the_one_shard_that_holds_the_patch(
    server: UnreliableServer, folder: Path, run: Path, tmp_path: Path
) -> None:
    row = pq.read_table(folder / "manifest.parquet").to_pylist()[13]
    pictures = []
    for name, place in (("remote", server.url), ("local", folder)):
        out = tmp_path / f"{name}.png"
        arguments = ("--key", row["key"], "--out", out, "--device", "cpu")
        result = invoke("attention", run, place, *arguments, "--cache-dir", tmp_path / "shards")
        assert result.exit_code == 0, result.output
        pictures.append(np.asarray(cv2.imread(str(out))))
    assert np.array_equal(pictures[0], pictures[1])
    assert shards_in(tmp_path / "shards") == {row["shard"]}


@pytest.mark.parametrize(
    ("shards", "more"),
    [(5, ()), (6, ("--protocol", "finetune"))],
    ids=["five shards in a batch", "and all of train"],
)
def test_a_cache_in_which_an_evaluation_would_wait_for_ever_is_refused_at_once(
    shards: int,
    more: tuple[str, ...],
    server: UnreliableServer,
    run: Path,
    shard_bytes: int,
    tmp_path: Path,
) -> None:
    kept = ("--cache-dir", tmp_path, "--cache-gb", shards * shard_bytes / 1e9)
    result = invoke("evaluate", run, server.url, "--out", tmp_path / "out", *FAST, *kept, *more)
    assert isinstance(result.exception, TrainError)
    assert "this evaluation needs shards of" in str(result.exception)
    assert "give --cache-gb 0.00" in str(result.exception)
    assert not [path for path in server.served if path.endswith(".tar")]


def test_only_processes_that_share_a_cache_count_against_it(
    server: UnreliableServer,
    run: Path,
    shard_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = ("--cache-dir", tmp_path, "--cache-gb", 5 * shard_bytes / 1e9)

    def refusal() -> str:
        result = invoke("evaluate", run, server.url, "--out", tmp_path / "out", *FAST, *kept)
        assert isinstance(result.exception, TrainError)
        return str(result.exception)

    alone = refusal()
    launch = {"RANK": 0, "WORLD_SIZE": 4, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in launch.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert refusal() == alone
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert refusal() != alone


def test_an_address_that_leads_nowhere_is_one_message(run: Path, tmp_path: Path) -> None:
    result = invoke("embed", run, "no/such/folder", "--out", tmp_path / "out.parquet")
    assert (result.exit_code, "is no folder, nor an address" in result.output) == (2, True)
    result = invoke("embed", run, "nowhere://at/all", "--out", tmp_path / "out.parquet")
    assert "nowhere://at/all cannot be opened" in str(result.exception)
    assert not list(tmp_path.iterdir())

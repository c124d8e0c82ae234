"""`order` and `doctor` from the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from dinomm_train.cli import cli
from dinomm_train.config import RunConfig
from dinomm_train.config_text import config_to_toml, override_config
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.location import open_dataset
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.data.training_stream import write_record
from dinomm_train.distributed import Ranks
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset
from tests.unreliable_server import serve

SMALL = ["sampling.global_batch=8", "schedule.epochs=12"]
TWO_RANKS = Ranks(rank=0, world=2, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"), size_px=4)


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    """A run's folder as far as its order needs it."""
    config = override_config(RunConfig(), [*SMALL, "sampling.seed=3"])
    (tmp_path / "config.toml").write_text(config_to_toml(config), encoding="utf-8")
    write_record(tmp_path, StoredDataset.open(dataset), TWO_RANKS)
    return tmp_path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)


def settings(*more: str) -> list[str]:
    return [part for setting in (*SMALL, *more) for part in ("--set", setting)]


def test_order_of_a_run_is_that_of_its_dataset_and_settings(run: Path, dataset: Path) -> None:
    of_run = invoke("order", run, "--step", "4", "--json")
    of_dataset = invoke(
        "order", dataset, "--step", "4", "--ranks", "2", "--json", *settings("sampling.seed=3")
    )
    told = json.loads(of_run.stdout)
    assert told == json.loads(of_dataset.stdout)
    assert (told["epoch"], told["step_in_epoch"]) == (1, 1)
    assert [len(keys) for keys in told["keys_by_rank"]] == [4, 4]


def test_order_of_a_key_leads_to_steps_that_saw_it(run: Path) -> None:
    key = "train_S2_patch_0007"
    told = json.loads(invoke("order", run, "--key", key, "--json").stdout)["appearances"]
    assert len(told) == 12
    for one in told[:3]:
        seen = json.loads(invoke("order", run, "--step", str(one["step"]), "--json").stdout)
        assert key in seen["keys_by_rank"][one["rank"]]
    lines = invoke("order", run, "--key", key).stdout.splitlines()
    assert lines == [f"{one['epoch']}\t{one['step']}\t{one['rank']}" for one in told]


def test_order_prints_rank_and_key(run: Path) -> None:
    lines = invoke("order", run, "--step", "0", "--ranks", "4").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == list("00112233")
    assert len({line.split("\t")[1] for line in lines}) == 8


def test_order_needs_one_question_and_a_step_that_the_run_has(run: Path) -> None:
    assert "either --step or --key" in str(invoke("order", run).exception)
    assert "beyond the run's last, 35" in str(invoke("order", run, "--step", "36").exception)


def test_order_refuses_a_dataset_that_has_changed(run: Path) -> None:
    record = json.loads((run / "stream.json").read_text())
    (run / "stream.json").write_text(json.dumps(record | {"dataset_checksum": "f" * 32}))
    result = invoke("order", run, "--step", "0")
    assert isinstance(result.exception, TrainError)
    assert "checksum ffff" in str(result.exception)


def test_order_needs_no_shard(tmp_path: Path, run: Path, dataset: Path) -> None:
    expected = invoke("order", run, "--step", "4").stdout
    bare = tmp_path / "bare"
    shutil.copytree(dataset, bare, ignore=shutil.ignore_patterns("*.tar"))
    assert not list(bare.rglob("*.tar"))
    record = json.loads((run / "stream.json").read_text())
    (run / "stream.json").write_text(json.dumps(record | {"dataset": str(bare)}))
    assert invoke("order", run, "--step", "4").stdout == expected
    told = invoke("order", bare, "--step", "4", "--ranks", "2", *settings("sampling.seed=3"))
    assert told.stdout == expected


def test_order_of_a_remote_run_asks_nobody_where_its_cache_is_there(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    expected = invoke("order", run, "--step", "4").stdout
    kept = ("--cache-dir", tmp_path / "cache")
    with serve(dataset) as server:
        storage = StorageOptions(cache_dir=tmp_path / "cache")
        write_record(run, open_dataset(server.url, storage), TWO_RANKS)
        asked = len(server.order)
        assert invoke("order", run, "--step", "4", *kept).stdout == expected
        assert len(server.order) == asked
        # Elsewhere nothing is kept yet: card and manifest are fetched, and no shard.
        elsewhere = ("--cache-dir", tmp_path / "other")
        assert invoke("order", run, "--step", "4", *elsewhere).stdout == expected
        assert server.order[asked:] == ["dataset.json", "manifest.parquet"]
    assert invoke("order", run, "--step", "4", *kept).stdout == expected


def test_order_says_whose_ranks_it_names(run: Path, dataset: Path) -> None:
    told = "ranks are those of the run's last start, of 2 process(es)"
    assert told in invoke("order", run, "--step", "0").stderr
    assert told in invoke("order", run, "--key", "train_S2_patch_0007", "--json").stderr
    assert "last start" not in invoke("order", run, "--step", "0", "--ranks", "2").stderr
    assert "last start" not in invoke("order", dataset, "--step", "0", *settings()).stderr


def test_a_place_that_is_neither_folder_nor_address_is_the_command_line_s_fault() -> None:
    result = invoke("order", "nowhere/at/all", "--step", "0")
    assert "is no folder, nor an address" in str(result.exception)


def test_doctor_answers_in_json_and_fails_where_a_check_does(dataset: Path) -> None:
    # 4 px hold no crop of the default side, so only what comes before the networks is looked at.
    result = invoke("doctor", dataset, "--device", "cpu", "--ranks", "3", "--json", *settings())
    assert result.return_value == 1
    told = json.loads(result.stdout)
    assert [one["name"] for one in told["checks"] if not one["is_good"]] == ["batches"]
    assert told["rates"] is None


def test_doctor_refuses_processes_that_machines_cannot_share_evenly(dataset: Path) -> None:
    result = invoke("doctor", dataset, "--ranks", "3", "--nodes", "2")
    assert "3 processes cannot be shared evenly by 2 machines" in str(result.exception)

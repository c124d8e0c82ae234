"""From a run and shards to scores, embeddings and exports, through the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest
import timm
import torch
from click.testing import CliRunner, Result

from dinomm_train import load_backbone
from dinomm_train.cli import cli
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.report.files import OPTIONAL_FILES
from tests.checkpoint_fixture import write_run
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = {"train": 40, "validation": 12, "test": 16}
    return make_dataset(tmp_path_factory.mktemp("dataset"), samples=samples)


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), dataset)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


TWIN = ("--beside", "twin=.")
FAST = ("--device", "cpu", "--bootstrap", 20, "--linear-epochs", 4)


def test_evaluate_scores_the_run_and_its_floors_under_every_sensor_set(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    fractions = ("--label-fraction", 0.25, "--label-fraction", 1, "--seeds", 2)
    floors = ("--floor", "random", "--floor", "rcf")
    result = invoke("evaluate", run, dataset, "--out", out, *FAST, *fractions, *floors)
    assert result.exit_code == 0, result.output
    stored = json.loads((out / "scores.json").read_text())
    assert len(stored["rows"]) == 3 * 2 * 2 * 3
    assert stored["setup"]["samples"] == {"train": 40, "validation": 12, "test": 16}
    assert stored["setup"]["labelled"] == {"0.25": 10, "1": 40}
    assert (stored["setup"]["crop_px"], stored["setup"]["input_px"]) == (32, 32)
    rows = pq.read_table(dataset / "manifest.parquet").to_pylist()
    labels = [len(row["labels"]) for row in rows if row["split"] == "test"]
    assert stored["setup"]["positive_share"] == pytest.approx(sum(labels) / (16 * 19))
    assert all(0 <= row["micro_ap"] <= 1 for row in stored["rows"])
    assert re.search(r"\| s1\+s2 +\| 100 % +\| linear +\| checkpoint \|", result.output)
    assert str(out / "scores.png") in result.output
    drawn = [(out / f"labels/labels-0.25-seed-{seed}.txt").read_text() for seed in range(2)]
    keys = {row["key"] for row in rows if row["split"] == "train"}
    assert drawn[0] != drawn[1]
    assert all(len(one.split()) == 10 and set(one.split()) <= keys for one in drawn)
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures >= {"scores.png", "labels.png", "classes.png", "attention.png"}
    assert "neighbours.png" in pictures
    assert pictures <= set(OPTIONAL_FILES), "a later report without them takes them away"


def test_a_second_call_finds_features_and_fits_and_says_the_same(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", run, dataset, *FAST, "--sensors", "s2", "--no-floor", "--json")
    cache = ("--cache", tmp_path / "cache")
    first = invoke(*arguments, *cache, "--out", tmp_path / "a")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == json.loads((tmp_path / "a" / "scores.json").read_text())
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.np[yz]")}
    assert len(files) == 3 + 2
    again = invoke(*arguments, *cache, "--out", tmp_path / "b")
    assert first.stdout == again.stdout
    assert files == {path: path.stat().st_mtime_ns for path in files}
    afresh = invoke(*arguments, "--out", tmp_path / "c")
    assert first.stdout == afresh.stdout
    assert [row["network"] for row in json.loads(first.stdout)["rows"]] == ["checkpoint"] * 2


@pytest.mark.slow
def test_processes_together_say_what_one_says_alone(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", run, dataset, *FAST, "--floor", "statistics", "--sensors", "s2")
    alone = invoke(*arguments, "--out", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    cache = ("--cache", tmp_path / "cache", "--out", tmp_path / "together")
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    launched = [
        subprocess.Popen(
            [sys.executable, "-m", "dinomm_train", *map(str, (*arguments, *cache))],
            env=os.environ | place | {"RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        for process in launched:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in launched:
            process.kill()
    assert (tmp_path / "together" / "scores.json").read_bytes() == (
        tmp_path / "alone" / "scores.json"
    ).read_bytes()


def test_fine_tuning_legacy_crossed_sensors_and_others_stand_in_one_table(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    result = invoke(
        *("evaluate", run, dataset, *FAST, "--out", tmp_path, "--json", "--no-floor"),
        *("--sensors", "s2", "--train-sensors", "s2", "--test-sensors", "s1", "--supervised"),
        *("--protocol", "logistic", "--protocol", "finetune", "--protocol", "legacy"),
        *("--finetune-epochs", 1, "--legacy-epochs", 1, "--beside", f"twin={run}"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = {(row["network"], row["protocol"], row["sensors"]) for row in found["rows"]}
    assert names == {
        (network, protocol, sensors)
        for sensors in ("s2", "s2 → s1")
        for network, protocol in (
            ("checkpoint", "logistic"),
            ("checkpoint", "finetune"),
            ("twin", "logistic"),
            ("twin", "finetune"),
            ("supervised", "finetune"),
        )
    }
    scores = {(row["network"], row["protocol"], row["sensors"]): row for row in found["rows"]}
    for protocol in ("logistic", "finetune"):
        mine, twin = (scores[name, protocol, "s2"] for name in ("checkpoint", "twin"))
        assert mine["micro_ap"] == twin["micro_ap"]
    assert {row["network"] for row in found["legacy"]} == {"checkpoint", "twin"}
    assert scores["checkpoint", "finetune", "s2"]["gains"] != {}
    assert "## Legacy" in (tmp_path / "scores.md").read_text()


def test_legacy_alone_makes_its_own_table_and_no_other(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    result = invoke(
        *("evaluate", run, dataset, *FAST, "--out", tmp_path, "--no-floor", "--sensors", "s1"),
        *("--protocol", "legacy", "--legacy-epochs", 1),
    )
    assert result.exit_code == 0, result.output
    assert "published figures only" in result.output
    assert "| s1      | 100 %  | checkpoint |" in result.output
    assert "| protocol |" not in result.output
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["rows"] == []
    assert 0 < stored["legacy"][0]["batch_micro_ap"] < 1


def test_random_takes_its_architecture_from_a_runs_configuration(
    dataset: Path, tmp_path: Path
) -> None:
    architecture = tmp_path / "config.toml"
    architecture.write_text("[model]\ndepth = 1\nwidth = 16\nheads = 2\n")
    options = ("--architecture", architecture, "--set", "views.crops.global_px=32")
    result = invoke(
        *("evaluate", "random", dataset, "--out", tmp_path / "out", "--json", *options),
        *("--sensors", "s1", "--protocol", "knn", *FAST, "--crop-px", 24, "--floor", "random"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["rows"]) == 1
    assert (found["setup"]["architecture"]["width"], found["setup"]["crop_px"]) == (16, 24)


def test_fine_tuning_of_nothing_but_untrained_networks_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    small = ("--set", "model.depth=1", "--set", "model.width=16", "--set", "model.heads=2")
    options = (*FAST, *small, "--set", "views.crops.global_px=32", "--protocol", "finetune")
    result = invoke("evaluate", "random", dataset, "--out", tmp_path, *options)
    assert isinstance(result.exception, TrainError)
    assert "nothing to score" in str(result.exception)
    assert not list(tmp_path.glob("scores.*"))


def test_too_few_labels_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    small = make_dataset(tmp_path / "dataset", samples={"train": 12, "test": 4})
    run, out = write_run(tmp_path / "run", small), tmp_path / "out"
    fractions = ("--label-fraction", 0.05, "--label-fraction", 1)
    result = invoke("evaluate", run, small, "--out", out, *FAST, *fractions)
    assert isinstance(result.exception, TrainError)
    assert "--label-fraction 0.05 of 12 train samples is 1" in str(result.exception)
    assert not out.exists()


def test_options_can_stand_in_a_file_and_the_command_line_wins(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    config = tmp_path / "evaluate.toml"
    config.write_text(
        'sensors = ["s1", "s2"]\nprotocol = ["knn"]\ncrop-px = 24\nfloor = ["statistics"]\n'
    )
    out = tmp_path / "out"
    result = invoke(
        *("evaluate", run, dataset, "--out", out, "--config", config, "--sensors", "s1"),
        *("--json", *FAST),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = [(row["sensors"], row["protocol"], row["network"]) for row in found["rows"]]
    assert rows == [("s1", "knn", "statistics"), ("s1", "knn", "checkpoint")]
    assert found["setup"]["crop_px"] == 24


def test_attention_draws_the_patch_that_is_named_and_no_other(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "attention.png"
    key = pq.read_table(dataset / "manifest.parquet")["key"][3].as_py()
    result = invoke("attention", run, dataset, "--key", key, "--out", out)
    assert result.exit_code == 0, result.output
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.std() > 20
    missing = invoke("attention", run, dataset, "--key", "nowhere", "--out", out)
    assert isinstance(missing.exception, TrainError)
    assert "no patch 'nowhere'; its manifest.parquet lists the keys" in str(missing.exception)


def test_embed_writes_a_row_per_patch_and_sensor_set(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features.parquet"
    result = invoke("embed", run, dataset, "--out", out, "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"out": str(out), "rows": 3 * 68}
    assert pq.read_table(out).num_rows == 3 * 68


def test_the_line_that_export_prints_builds_the_network(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbone.safetensors"
    result = invoke("export", run, "--out", out)
    assert result.exit_code == 0, result.output
    plain = eval(result.output.strip().splitlines()[-1], {"timm": timm})
    images = torch.rand(2, 14, 32, 32)
    torch.testing.assert_close(plain.eval()(images), load_backbone(run)(images))
    exported = invoke("evaluate", out, "absent", "--out", tmp_path)
    assert exported.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("evaluate", "absent", "DATASET", "--out", "x"), "'absent' does not exist"),
        (("embed", "random", "DATASET", "--out", "x.csv"), "x.csv must end in .parquet or .zarr"),
        (("export", "RUN", "--out", "x.pt"), "x.pt must end in .safetensors"),
        (("evaluate", "random", "DATASET", "--out", "x", "--set", "model.dpth=1"), "model.depth"),
        (("evaluate", "RUN", "DATASET", "--out", "x", "--train-sensors", "s1"), "go together"),
        (("evaluate", "RUN", "DATASET", "--out", "x", "--beside", "rcf=RUN"), "NAME=CHECKPOINT"),
        (("evaluate", "RUN", "DATASET", "--out", "x", *TWIN, *TWIN), "twin is given twice"),
    ],
)
def test_wrong_command_lines_are_named_with_exit_code_two(
    dataset: Path, run: Path, arguments: tuple[str, ...], named: str
) -> None:
    places = {"DATASET": str(dataset), "RUN": str(run)}
    result = invoke(*(places.get(one, one) for one in arguments))
    assert result.exit_code == 2
    assert named in result.output


def test_the_command_line_is_ready_without_torch() -> None:
    code = "import sys, dinomm_train.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

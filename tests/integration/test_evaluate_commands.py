"""From a run and shards to scores, embeddings and exports, through the command line."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
import torch
from click.testing import CliRunner, Result

from dinomm_train import load_backbone
from dinomm_train.cli import cli
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


def test_evaluate_scores_the_run_and_its_floor_under_every_sensor_set(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    result = invoke("evaluate", run, dataset, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    stored = json.loads((out / "scores.json").read_text())
    assert len(stored["rows"]) == 3 * 2 * 2
    assert stored["setup"]["samples"] == {"train": 40, "validation": 12, "test": 16}
    assert (stored["setup"]["crop_px"], stored["setup"]["input_px"]) == (32, 32)
    rows = pq.read_table(dataset / "manifest.parquet").to_pylist()
    labels = [len(row["labels"]) for row in rows if row["split"] == "test"]
    assert stored["setup"]["positive_share"] == pytest.approx(sum(labels) / (16 * 19))
    assert all(0 <= row["micro_ap"] <= 1 for row in stored["rows"])
    assert "| s1+s2   | linear   | checkpoint |" in result.output
    assert str(out / "scores.png") in result.output


def test_evaluate_prints_json_that_equals_the_file_and_repeats_exactly(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", run, dataset, "--sensors", "s2", "--no-floor", "--device", "cpu")
    first = invoke(*arguments, "--json", "--out", tmp_path / "a")
    again = invoke(*arguments, "--json", "--out", tmp_path / "b", "--batch-size", 64)
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == json.loads((tmp_path / "a" / "scores.json").read_text())
    assert first.stdout == again.stdout
    assert [row["network"] for row in json.loads(first.stdout)["rows"]] == ["checkpoint"] * 2


def test_random_takes_its_architecture_from_a_runs_configuration(
    dataset: Path, tmp_path: Path
) -> None:
    architecture = tmp_path / "config.toml"
    architecture.write_text("[model]\ndepth = 1\nwidth = 16\nheads = 2\n")
    options = ("--architecture", architecture, "--set", "views.crops.global_px=32")
    result = invoke(
        *("evaluate", "random", dataset, "--out", tmp_path / "out", "--json", *options),
        *("--sensors", "s1", "--protocol", "knn", "--device", "cpu", "--crop-px", 24),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["rows"]) == 1
    assert (found["setup"]["architecture"]["width"], found["setup"]["crop_px"]) == (16, 24)


def test_options_can_stand_in_a_file_and_the_command_line_wins(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    config = tmp_path / "evaluate.toml"
    config.write_text('sensors = ["s1", "s2"]\nprotocol = ["knn"]\ncrop-px = 24\nfloor = false\n')
    out = tmp_path / "out"
    result = invoke(
        *("evaluate", run, dataset, "--out", out, "--config", config, "--sensors", "s1"),
        *("--json", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(row["sensors"], row["protocol"]) for row in found["rows"]] == [("s1", "knn")]
    assert found["setup"]["crop_px"] == 24


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
        (("embed", "random", "DATASET", "--out", "x.csv"), "x.csv must end in .parquet"),
        (("export", "RUN", "--out", "x.pt"), "x.pt must end in .safetensors"),
        (("evaluate", "random", "DATASET", "--out", "x", "--set", "model.dpth=1"), "model.depth"),
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
    import subprocess

    code = "import sys, dinomm_train.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

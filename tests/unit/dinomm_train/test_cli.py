"""What the command line passes on, and how it ends."""

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import dinomm_train.trainer
from dinomm_train.cli import cli, main
from dinomm_train.config import RECIPES, RunConfig
from dinomm_train.config_text import override_config
from dinomm_train.errors import TrainError
from dinomm_train.requeue import REQUEUE_NAME
from dinomm_train.stop_request import StoppedEarly, StopRequest
from dinomm_train.trainer import LaunchOptions, PretrainResult
from tests.run_processes import SIGNAL_WHILE_IMPORTING
from tests.shard_fixture import make_dataset


class FakeTraining:
    """Stands in for the trainer: keeps what it was given and ends as told."""

    def __init__(self, *, step: int = 5, signal_number: int = 0) -> None:
        self.step = step
        self.signal_number = signal_number
        self.config: RunConfig | None = None
        self.options: LaunchOptions | None = None

    def __call__(
        self,
        dataset: Path,
        run: Path,
        config: RunConfig,
        options: LaunchOptions,
        stop: StopRequest,
    ) -> PretrainResult:
        assert dataset.is_dir()
        assert not stop.signal_number
        self.config, self.options = config, options
        return PretrainResult(
            run=run, step=self.step, total_steps=5, signal_number=self.signal_number
        )


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A command holds signals back to the end of its process, which here is that of the tests."""
    with StopRequest():
        yield


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(dinomm_train.trainer, "pretrain", fake)
    return fake


def invoke(tmp_path: Path, *arguments: str) -> Result:
    command = ["pretrain", str(tmp_path), "--out", str(tmp_path / "run"), *arguments]
    return CliRunner().invoke(cli, command, standalone_mode=False)


def test_settings_come_from_recipe_then_file_then_assignments(
    training: FakeTraining, tmp_path: Path
) -> None:
    file = tmp_path / "some.toml"
    file.write_text("[schedule]\nepochs = 20\n[head]\nprototypes = 7\n", encoding="utf-8")
    arguments = ["--recipe", "paper", "--config", str(file), "--set", "schedule.epochs=30"]
    result = invoke(tmp_path, *arguments, "--precision", "bf16")
    assert result.exception is None
    expected = ["schedule.epochs=30", "head.prototypes=7", "sampling.precision=bf16"]
    assert training.config == override_config(RECIPES["paper"], expected)


def test_launch_options_are_passed_on(training: FakeTraining, tmp_path: Path) -> None:
    invoke(tmp_path, "--max-steps=3", "--device=cpu", "--threads=2", "--hang-timeout=7")
    assert training.options == LaunchOptions(
        device="cpu", max_steps=3, threads=2, hang_timeout_s=7.0
    )
    assert training.config == RECIPES["fixed"]


def test_how_many_checkpoints_are_kept_can_be_said_in_short(
    training: FakeTraining, tmp_path: Path
) -> None:
    invoke(tmp_path, "--keep-last", "2", "--keep-every", "500")
    assert training.config is not None
    output = training.config.output
    assert (output.keep_last, output.keep_every_steps) == (2, 500)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_before_the_run_is_open_ends_with_the_same_codes(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> PretrainResult:
        raise StoppedEarly(number)

    monkeypatch.setattr(dinomm_train.trainer, "pretrain", leave)
    assert invoke(tmp_path).return_value == code
    assert (tmp_path / "run" / REQUEUE_NAME).exists() == (code == 85)


def test_json_says_where_the_run_stands(training: FakeTraining, tmp_path: Path) -> None:
    training.step = 3
    report = json.loads(invoke(tmp_path, "--json").stdout)
    assert report == {
        "run": str(tmp_path / "run"),
        "step": 3,
        "total_steps": 5,
        "signal_number": 0,
        "is_finished": False,
    }


@pytest.mark.parametrize(
    ("step", "signal_number", "code"),
    [
        (5, 0, 0),
        (3, 0, 0),
        (3, signal.SIGINT, 130),
        (3, signal.SIGTERM, 85),
        (3, signal.SIGUSR1, 85),
        (5, signal.SIGTERM, 0),
    ],
)
def test_the_exit_code_says_why_the_command_ended(
    step: int, signal_number: int, code: int, training: FakeTraining, tmp_path: Path
) -> None:
    training.step, training.signal_number = step, int(signal_number)
    assert invoke(tmp_path).return_value == code
    assert (tmp_path / "run" / REQUEUE_NAME).exists() == (code == 85)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dinomm-train", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    assert isinstance(ending.value.code, int)
    return ending.value.code


def test_a_wrong_setting_is_the_command_line_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("pretrain", str(tmp_path), "--out", str(tmp_path / "run"))
    assert run_main(monkeypatch, *arguments, "--set", "schedule.epoch=3") == 2
    assert "did you mean schedule.epochs?" in capsys.readouterr().err


def test_a_folder_that_is_no_dataset_is_the_data_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("pretrain", str(tmp_path), "--out", str(tmp_path / "run"), "--device", "cpu")
    assert run_main(monkeypatch, *arguments) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {tmp_path} has no dataset.json")
    assert "Traceback" not in errors


def test_two_verbose_flags_show_the_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> PretrainResult:
        raise TrainError("the shards are gone")

    monkeypatch.setattr(dinomm_train.trainer, "pretrain", fail)
    assert run_main(monkeypatch, "-vv", "pretrain", str(tmp_path), "--out", str(tmp_path)) == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert "error: the shards are gone" in errors


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, dinomm_train.cli; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_tiny_run_leaves_a_checkpoint_metrics_and_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(tmp_path / "shards", samples={"train": 8})
    settings = [
        "model.name=vit_tiny_patch16_224",
        "model.patch_px=8",
        "model.depth=1",
        "model.width=24",
        "model.heads=2",
        "head.hidden=16",
        "head.prototypes=32",
        "views.crops.global_px=16",
        "views.crops.local_px=8",
        "schedule.epochs=2",
        "schedule.warmup_epochs=1",
        "sampling.global_batch=4",
    ]
    run = tmp_path / "run"
    arguments = ["pretrain", str(dataset), "--out", str(run), "--device", "cpu", "--json"]
    assignments = [part for setting in settings for part in ("--set", setting)]
    assert run_main(monkeypatch, *arguments, *assignments) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["is_finished"] is True
    assert "2 epochs of 2 steps of 4 samples on 1 cpu process(es)" in output.err
    found = sorted(path.name for path in run.iterdir())
    expected = ["checkpoints", "config.toml", "health.jsonl", "metrics.jsonl"]
    expected += ["stream.json", "tensorboard"]
    assert found == expected


def _installed_command() -> str:
    file = Path(__file__).parents[3] / "pyproject.toml"
    scripts = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["dinomm-train"].partition(":")
    return f"from {module} import {function}; {function}()"


@pytest.mark.parametrize(
    "entry", ["runpy.run_module('dinomm_train', run_name='__main__')", _installed_command()]
)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pretrain", "--help"], 0),
        (["-v", "pretrain", "--help"], 0),
        (["evaluate", "pretrain", "--help"], -signal.SIGTERM),
    ],
)
def test_pretraining_alone_does_not_die_of_a_signal_while_the_command_is_imported(
    entry: str, words: list[str], code: int
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNAL_WHILE_IMPORTING + entry, *words],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr

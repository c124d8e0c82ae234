"""What the benchmark of a step measures, and with what."""

import importlib
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dinomm_train.config import RunConfig

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def step_speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("step_speed")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("avx512f avx512_bf16 amx_tile", "bf16"),
        ("amx_bf16", "bf16"),
        ("avx512f avx512_vnni", "fp32"),
    ],
)
def test_our_step_is_in_bf16_where_the_processor_multiplies_it(
    step_speed: ModuleType, tmp_path: Path, flags: str, precision: str
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(f"processor : 0\nflags : {flags}\n", encoding="utf-8")
    assert step_speed.precision_of("cpu", processor) == precision
    assert step_speed.precision_of("cuda", processor) == "auto"


def test_memory_is_that_of_the_step_that_was_asked_for(
    step_speed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["step_speed.py", "--batch", "8", "--micro-batch", "2", "--compile"]
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="5.0\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", given)
    setting, _ = step_speed.read_arguments()
    step_speed.report_memory(setting)
    for command, name in zip(commands, ("plain", "ours"), strict=True):
        monkeypatch.setattr(sys, "argv", command[1:])
        assert step_speed.read_arguments() == (setting, name)
    assert (setting.config.compute.micro_batch, setting.config.compute.compile) == (2, True)


def test_a_processor_s_ceiling_is_in_the_cpu_seconds_of_its_steps(
    step_speed: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clocks: list[object] = []

    def measure_peak_flops(_: torch.device, dtype: torch.dtype, clock: object) -> float:
        assert dtype == torch.float32
        clocks.append(clock)
        return 4e12

    monkeypatch.setattr(step_speed, "measure_peak_flops", measure_peak_flops)
    monkeypatch.setattr(step_speed, "training_flops_per_image", lambda *_, **__: 10**12)
    setting = step_speed.Setting(device=torch.device("cpu"), batch=2, rounds=1, config=RunConfig())
    step_speed.report_mfu(1.0, setting)
    assert clocks == [time.process_time]
    assert "MFU 50.0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "batch", "plain"), [("cpu", 256, 256), ("cuda", 256, 64), ("cuda", 32, 32)]
)
def test_memory_is_told_with_the_samples_it_was_measured_on(
    step_speed: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
    batch: int,
    plain: int,
) -> None:
    done = subprocess.CompletedProcess([], 0, stdout="5.0\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    setting = step_speed.Setting(
        device=torch.device(device), batch=batch, rounds=1, config=RunConfig()
    )
    step_speed.report_memory(setting)
    said = capsys.readouterr().out
    assert said == f"memory of a step: plain 5 MB of {plain} samples, ours 5 MB of {batch}\n"


def test_making_views_may_not_wait_for_a_gpu(
    step_speed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = ["default"]
    seen_in: list[str] = []

    def make_views(*_: object) -> str:
        seen_in.append(modes[-1])
        return "views"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(step_speed, "make_views", make_views)
    setting = step_speed.Setting(device=torch.device("cpu"), batch=1, rounds=1, config=RunConfig())
    assert step_speed.new_views(setting) == "views"
    assert (seen_in, modes[-1]) == (["error"], "default")

"""What a GPU would be asked for in a step; gradients are made up."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dinomm_train import learner as learner_module
from dinomm_train.config import (
    CropConfig,
    PublishedConfig,
    RadiometryConfig,
    RunConfig,
    ViewConfig,
)
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.data.views import Views, make_views
from dinomm_train.distributed import Ranks
from dinomm_train.learner import Learner
from dinomm_train.metrics import MetricsWriter
from dinomm_train.models.student_teacher import build_student_teacher
from dinomm_train.run_report import RunReport, Work
from dinomm_train.schedules import step_values
from dinomm_train.transfer import to_device
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.fake_gpu import GPU, NeverWaits, WaitError, on_gpu, put_on_gpu

SAMPLES = 16
TINY = replace(
    TINY_RUN,
    model=replace(TINY_MODEL, drop_path=0.5),
    views=ViewConfig(
        crops=CropConfig(global_px=16, local_px=8, local_count=2),
        radiometry=RadiometryConfig(s2_gray=0.5),
        published=PublishedConfig(gray=0.5),
    ),
)
VALUES = step_values(25, TINY, steps_per_epoch=10)
SCALING = InputScaling(
    channels=SensorChannels(s2=slice(0, 3), s1=slice(3, 5)),
    gain=np.ones(5, dtype=np.float32),
    bias=np.zeros(5, dtype=np.float32),
    physical_per_input=np.ones(5, dtype=np.float32),
    physical_at_zero=np.zeros(5, dtype=np.float32),
    valid_range=(0.0, 1.0),
)


def say_nothing(count: int, note: str = "") -> None:
    """Take the place of a progress line."""


def some_views(config: RunConfig) -> Views:
    images = torch.empty(SAMPLES, 5, 20, 20, device=GPU)
    key = ViewKey(seed=0, epoch=0, sample_ids=np.arange(SAMPLES, dtype=np.uint64))
    return make_views(images, key, config.views, SCALING)


CONFIGS = {
    "fixed, bf16": TINY,
    "fp32": replace(TINY, sampling=replace(TINY.sampling, precision="fp32")),
    "published chain": replace(TINY, views=replace(TINY.views, chain="published")),
    "clipping per tensor": replace(TINY, optim=replace(TINY.optim, clip="per_tensor")),
    "in parts, recomputed": replace(
        TINY,
        compute=replace(TINY.compute, micro_batch=6, checkpoint_activations=True),
    ),
    "published position table": replace(
        TINY, model=replace(TINY.model, table_px=24, table_resampling="published")
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nothing_of_a_step_waits_for_the_gpu(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(steps_done=0, steps_to_do=9, steps_per_epoch=9)
    report = RunReport(MetricsWriter(tmp_path, []), say_nothing, config, work, time.monotonic)
    networks = build_student_teacher(config, channels=5)
    monkeypatch.setattr(networks, "to", lambda _: put_on_gpu(networks))
    monkeypatch.setattr(learner_module, "build_student_teacher", lambda *_, **__: networks)

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad
        for weights in networks.student.parameters():
            weights.grad = torch.empty_like(weights)

    def fused_sgd(
        weights: Sequence[Tensor], gradients: Sequence[Tensor], *_: object, **__: object
    ) -> None:
        assert {one.device for one in (*weights, *gradients)} == {GPU}

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    with on_gpu(monkeypatch):
        learner = Learner(config, Ranks(rank=0, world=1, device=GPU), channels=5)
        with NeverWaits():  # type: ignore[no-untyped-call]
            views = some_views(config)
            measured = [learner.step(views, VALUES, step) for step in range(2)]
            for step, one in enumerate(measured):
                report.add(step + 1, VALUES, one, waited_s=0.0)
        for one in measured:
            assert {one.loss.device, one.gradient_norm.device, one.skipped.device} == {GPU}


def test_what_would_wait_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros(4, dtype=np.int64)
    with on_gpu(monkeypatch), NeverWaits():  # type: ignore[no-untyped-call]
        there = torch.empty(8, 2, device=GPU)
        chosen = to_device(array, GPU)
        there[chosen]
        for wait in (
            lambda: torch.from_numpy(array).to(GPU, non_blocking=True),
            lambda: torch.from_numpy(array).pin_memory().to(GPU),
            there.cpu,
            lambda: there[torch.from_numpy(array)],
            lambda: there.__setitem__(chosen, 0.0),
            lambda: there.copy_(torch.empty(8, 2)),
        ):
            with pytest.raises(WaitError):
                wait()
        with pytest.raises(Exception, match="local_scalar_dense"):
            float(there.sum())

"""Floating-point operations: what training on one image takes, and what a device can do."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from dinomm_train.config import ComputeConfig, RunConfig
from dinomm_train.distributed import Ranks
from dinomm_train.models.student_teacher import build_student_teacher
from dinomm_train.transfer import wait_for_device

_SIDE = 4096
"""Side of the measured matrices: large enough that a GPU is at its rate, 32 MiB each in bf16."""

_CPU_SIDE = 1024
_ROUNDS = 5
_ROUND_S = 0.05
"""Shortest time that one round of matrix products is measured over, in seconds."""


def training_flops_per_image(config: RunConfig, *, channels: int) -> int:
    """Operations of one image in one step, a multiplication and an addition counted as two.

    The teacher's forward pass, the student's, and the student's backward pass are counted by
    torch's own counter on the run's modules, without memory or arithmetic (`meta` tensors). What
    is computed twice to save memory counts once, and stochastic depth saves nothing; loss,
    optimizer and crops do not count.
    """
    config = replace(config, compute=ComputeConfig())
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        networks = build_student_teacher(config, channels=channels)
        crops = config.views.crops
        seen = [torch.empty(crops.global_count, channels, crops.global_px, crops.global_px)]
        with FlopCounterMode(display=False) as counter:
            with torch.no_grad():
                networks.teacher(seen).logits()
            if crops.local_count:
                seen.append(
                    torch.empty(crops.local_count, channels, crops.local_px, crops.local_px)
                )
            logits = networks.student.eval()(seen).logits()
            logits.sum().backward()
    return int(counter.get_total_flops())


def measure_utilization(
    config: RunConfig, ranks: Ranks, *, channels: int, half_precision: bool
) -> tuple[int, float]:
    """Operations per image, and per second on all ranks' devices; zeros where MFU is not asked.

    A CPU has an MFU only where `output.peak_tflops` says what it is a share of.
    """
    if ranks.device.type == "cpu" and not config.output.peak_tflops:
        return 0, 0.0
    peak_flops = device_peak_flops(config, ranks.device, half_precision=half_precision)
    return training_flops_per_image(config, channels=channels), peak_flops * ranks.world


def device_peak_flops(config: RunConfig, device: torch.device, *, half_precision: bool) -> float:
    """What MFU is a share of on one device: `output.peak_tflops`, or what is measured."""
    dtype = torch.bfloat16 if half_precision else torch.float32
    return config.output.peak_tflops * 1e12 or measure_peak_flops(device, dtype)


def measure_peak_flops(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Operations per second, by this clock, that the device reaches in large matrix products.

    The best of some rounds, each synchronized once; takes about a second.
    """
    side = _CPU_SIDE if device.type == "cpu" else _SIDE
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = left @ right

    def seconds_of(count: int) -> float:
        wait_for_device(device)
        start_s = clock()
        for _ in range(count):
            torch.mm(left, right, out=product)
        wait_for_device(device)
        return clock() - start_s

    count, seconds = 1, 0.0
    while seconds < _ROUND_S:
        count *= 2
        seconds = seconds_of(count)
    return 2 * side**3 * count / min(seconds_of(count) for _ in range(_ROUNDS))

"""The operations of a step are those that the network's layers add up to by hand."""

import itertools
from dataclasses import replace

import torch

from dinomm_train.config import (
    CropConfig,
    HeadConfig,
    ModelConfig,
    OutputConfig,
    RunConfig,
    ViewConfig,
)
from dinomm_train.distributed import Ranks
from dinomm_train.flops import (
    device_peak_flops,
    measure_peak_flops,
    measure_utilization,
    training_flops_per_image,
)

CHANNELS, WIDTH, DEPTH, PATCH = 5, 24, 3, 8
SMALL = RunConfig(
    model=ModelConfig(
        name="vit_tiny_patch16_224", patch_px=PATCH, depth=DEPTH, width=WIDTH, heads=2
    ),
    head=HeadConfig(hidden=40, bottleneck=16, prototypes=64),
    views=ViewConfig(crops=CropConfig(global_px=32, local_px=16, local_count=3)),
)


def forward_by_hand(side_px: int) -> tuple[int, int]:
    """Operations of one crop: those of the patch embedding, and all others."""
    patches = (side_px // PATCH) ** 2
    tokens = patches + 1
    embedding = 2 * patches * CHANNELS * PATCH**2 * WIDTH
    # In the last block all rows serve as keys and values, but only the class token goes on.
    block = 2 * tokens * WIDTH * (3 + 1 + 4 + 4) * WIDTH + 2 * 2 * tokens**2 * WIDTH
    last = 2 * (2 * tokens + 1 + 1 + 4 + 4) * WIDTH**2 + 2 * 2 * tokens * WIDTH
    head = 2 * (WIDTH * 40 + 40 * 40 + 40 * 16 + 16 * 64)
    return embedding, (DEPTH - 1) * block + last + head


def test_the_count_is_what_layers_add_up_to_forward_and_twice_backward() -> None:
    (global_embedding, global_rest), (local_embedding, local_rest) = map(forward_by_hand, (32, 16))
    embedding = 2 * global_embedding + 3 * local_embedding
    rest = 2 * global_rest + 3 * local_rest
    teacher = 2 * (global_embedding + global_rest)
    # Backward computes gradients of inputs and of weights; crops need no gradient.
    assert training_flops_per_image(SMALL, channels=CHANNELS) == (
        teacher + 2 * embedding + 3 * rest
    )


def test_counting_draws_no_random_number_and_needs_no_local_crops() -> None:
    before = torch.get_rng_state()
    crops = replace(SMALL.views.crops, local_count=0)
    alone = training_flops_per_image(
        replace(SMALL, views=ViewConfig(crops=crops)), channels=CHANNELS
    )
    assert 0 < alone < training_flops_per_image(SMALL, channels=CHANNELS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_peak_is_by_the_clock_that_is_given() -> None:
    ticks = itertools.count()
    # Each round of two products takes a second, from one tick to the next.
    peak = measure_peak_flops(torch.device("cpu"), torch.float32, lambda: float(next(ticks)))
    assert peak == 2 * 2 * 1024**3


def test_the_peak_is_what_is_configured_and_else_what_is_measured() -> None:
    cpu = torch.device("cpu")
    configured = replace(SMALL, output=OutputConfig(peak_tflops=3.0))
    assert device_peak_flops(configured, cpu, half_precision=True) == 3e12
    assert 1e8 < device_peak_flops(SMALL, cpu, half_precision=False) < 1e14
    alone = Ranks(rank=0, world=1, device=cpu)
    nothing = measure_utilization(SMALL, alone, channels=CHANNELS, half_precision=False)
    assert nothing == (0, 0.0)
    pair = replace(alone, world=2)
    flops = training_flops_per_image(SMALL, channels=CHANNELS)
    both = measure_utilization(configured, pair, channels=CHANNELS, half_precision=False)
    assert both == (flops, 6e12)


def test_a_processor_reaches_some_operations_per_second() -> None:
    assert 1e8 < measure_peak_flops(torch.device("cpu"), torch.float32) < 1e14

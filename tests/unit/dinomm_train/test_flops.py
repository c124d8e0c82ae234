"""The operations of a step are those that the network's layers add up to by hand."""

from dataclasses import replace

import torch

from dinomm_train.config import CropConfig, HeadConfig, ModelConfig, RunConfig, ViewConfig
from dinomm_train.flops import measure_peak_flops, training_flops_per_image

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


def test_a_processor_reaches_some_operations_per_second() -> None:
    assert 1e8 < measure_peak_flops(torch.device("cpu"), torch.float32) < 1e14

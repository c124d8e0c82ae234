"""Operations counted on the networks agree with those counted by hand."""

from dinomm_train.config import CropConfig, HeadConfig, ModelConfig, RunConfig, ViewConfig
from dinomm_train.config_text import override_config
from dinomm_train.doctor.flops import flops_per_sample

SMALL = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=3, width=64, heads=2),
    head=HeadConfig(hidden=96, bottleneck=32, prototypes=512),
    views=ViewConfig(crops=CropConfig(global_px=48, local_px=24, local_count=4)),
)


def vit_forward(tokens: int, width: int, depth: int, patch_values: int) -> int:
    """Matrix products of a vision transformer's forward pass, one crop, all rows computed."""
    block = 2 * tokens * width * (3 * width + width + 8 * width) + 4 * tokens**2 * width
    return depth * block + 2 * (tokens - 1) * patch_values * width


def test_the_paper_s_setting_takes_what_was_derived_for_it() -> None:
    # 113.6 GFLOP derived; 105.9 where the last block computes its class row alone. A network that
    # recomputes the prototypes' logits adds about one hundredth.
    assert 0.92 < flops_per_sample(RunConfig(), channels=14) / 113.6e9 < 1.03


def test_a_small_setting_takes_what_its_matrix_products_add_up_to() -> None:
    whole, local = (vit_forward((side // 8) ** 2 + 1, 64, 3, 14 * 64) for side in (48, 24))
    head = 2 * (64 * 96 + 96 * 96 + 96 * 32 + 32 * 512)
    student, teacher = 2 * whole + 4 * local + 6 * head, 2 * (whole + head)
    # A backward pass is twice a forward pass, but for the gradient of the pixels, which nobody
    # needs; rows of the last block that nobody reads may be left out.
    expected = 3 * student + teacher
    assert 0.85 < flops_per_sample(SMALL, channels=14) / expected < 1.03


def test_a_run_without_local_crops_takes_less() -> None:
    alone = override_config(SMALL, ["views.crops.local_count=0"])
    assert flops_per_sample(alone, channels=14) < flops_per_sample(SMALL, channels=14)

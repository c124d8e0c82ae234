"""Nonsense is refused where it is written, and the recipes differ where the publication did."""

import pytest

from dinomm_train.config import (
    RECIPES,
    CropConfig,
    HeadConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
)


def test_the_default_run_is_the_fixed_recipe() -> None:
    assert RECIPES["fixed"] == RunConfig()


def test_the_paper_recipe_has_every_published_defect_switched_on() -> None:
    paper = RECIPES["paper"]
    assert paper.sampling.sample_limit == 300_000  # D1
    assert paper.views.chain == "published"  # D6 to D9
    assert paper.views.published.gray_mixes_sensors
    assert paper.views.published.wrap
    assert paper.views.published.solarize_inverts_below
    assert (paper.views.crops.vertical_flip, paper.views.crops.quarter_turns) == (0.0, 0.0)
    assert paper.views.sensor_drop.fill == 0.0  # D10
    assert paper.optim.clip == "per_tensor"
    assert (paper.model.table_px, paper.model.table_resampling) == (224, "published")


def test_both_recipes_share_what_was_not_a_defect() -> None:
    fixed, paper = RECIPES["fixed"], RECIPES["paper"]
    assert (fixed.head, fixed.loss, fixed.schedule) == (paper.head, paper.loss, paper.schedule)


def test_impossible_values_are_refused_with_their_name() -> None:
    with pytest.raises(ValueError, match="warmup_epochs must not exceed epochs"):
        ScheduleConfig(epochs=5)
    with pytest.raises(ValueError, match="global_batch must be finite and positive"):
        SamplingConfig(global_batch=0)
    with pytest.raises(ValueError, match="depth must be finite and not negative"):
        ModelConfig(depth=-1)
    with pytest.raises(ValueError, match="prototypes must be finite and positive"):
        HeadConfig(prototypes=0)
    with pytest.raises(ValueError, match="student_temperature must be finite and positive"):
        LossConfig(student_temperature=0.0)
    with pytest.raises(ValueError, match="betas must lie in"):
        OptimConfig(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="keep_last must be finite and positive"):
        OutputConfig(keep_last=0)


def test_impossible_crops_are_refused_with_their_name() -> None:
    with pytest.raises(ValueError, match="global_scale must rise"):
        CropConfig(global_scale=(0.9, 0.4))
    with pytest.raises(ValueError, match="global_count must be at least 2"):
        CropConfig(global_count=1)
    with pytest.raises(ValueError, match=r"vertical_flip must lie in \[0, 1\]"):
        CropConfig(vertical_flip=1.5)

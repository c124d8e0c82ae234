"""How a step may be computed."""

import pytest

from dinomm_train.compute_config import ComputeConfig


def test_by_default_a_batch_goes_through_whole_stored_and_not_compiled() -> None:
    config = ComputeConfig()
    assert (config.micro_batch, config.checkpoint_activations, config.compile) == (0, False, False)
    assert config.sharding == "none"


def test_a_negative_part_of_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch must be finite and not negative, got -1"):
        ComputeConfig(micro_batch=-1)

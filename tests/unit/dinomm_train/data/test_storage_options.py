"""Where shards are kept: sizes that cannot be are refused."""

import math

import pytest

from dinomm_train.data.storage_options import StorageOptions


@pytest.mark.parametrize("cache_gb", [-0.001, math.nan, math.inf])
def test_a_cache_of_no_possible_size_is_refused(cache_gb: float) -> None:
    with pytest.raises(ValueError, match="cache_gb must be finite and not negative, got"):
        StorageOptions(cache_gb=cache_gb)


def test_a_cache_of_zero_takes_what_is_free() -> None:
    assert StorageOptions(cache_gb=0.0) == StorageOptions()

"""Where shards are kept and how long a source is borne: what cannot be is refused."""

import math

import pytest

from dinomm_train.data.cached_shards import _LOOK_S, PATIENCE_S
from dinomm_train.data.storage_options import RetryConfig, StorageOptions
from dinomm_train.trainer import LaunchOptions


@pytest.mark.parametrize("cache_gb", [-0.001, math.nan, math.inf])
def test_a_cache_of_no_possible_size_is_refused(cache_gb: float) -> None:
    with pytest.raises(ValueError, match="cache_gb must be finite and not negative, got"):
        StorageOptions(cache_gb=cache_gb)


def test_a_cache_of_zero_takes_what_is_free() -> None:
    assert StorageOptions(cache_gb=0.0) == StorageOptions()


def test_a_source_is_given_up_after_all_attempts_and_the_pauses_between_them() -> None:
    assert RetryConfig(attempts=1, pause_s=2.0, stall_s=10.0).longest_s == 10.0
    assert RetryConfig(attempts=4, pause_s=2.0, stall_s=10.0).longest_s == 40.0 + 2.0 + 4.0 + 8.0


def test_whoever_waits_for_a_shard_names_it_before_the_watch_over_ranks_ends_the_run() -> None:
    # The source's own failure first, seen at the next look; then the wait's; then the watch's.
    assert RetryConfig().longest_s + _LOOK_S < PATIENCE_S
    assert LaunchOptions().hang_timeout_s - 30 > PATIENCE_S

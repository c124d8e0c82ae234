"""Random numbers by name."""

import numpy as np
import pytest
from scipy import stats

from dinomm_train.data.draws import Purpose, ViewKey, hash_words, view_uniforms

MASK = 2**64 - 1


def plain_hash(*words: int) -> int:
    state = 0
    for word in words:
        mixed = (state + word + 0x9E3779B97F4A7C15) & MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        state = mixed ^ (mixed >> 31)
    return state


def key_of(*sample_ids: int, seed: int = 1, epoch: int = 2) -> ViewKey:
    return ViewKey(seed=seed, epoch=epoch, sample_ids=np.array(sample_ids, dtype=np.uint64))


def test_one_word_gives_the_first_number_of_splitmix64_seeded_with_it() -> None:
    assert int(hash_words(0)[0]) == 0xE220A8397B1DCDAF  # published first output for seed 0


def test_chained_words_agree_with_exact_integers() -> None:
    ids = np.array([0, 5, MASK], dtype=np.uint64)
    words = hash_words(7, ids)
    assert [int(word) for word in words] == [plain_hash(7, int(one)) for one in ids]


def test_uniforms_are_the_top_53_bits_of_the_named_word() -> None:
    uniforms = view_uniforms(key_of(11, 12), Purpose.CROP, views=range(3, 5), draws=4)
    word = plain_hash(1, 2, Purpose.CROP, 12, 4, 3)
    assert uniforms.shape == (2, 2, 4)
    assert uniforms[1, 1, 3] == (word >> 11) / 2**53


def test_a_sample_draws_the_same_in_any_batch() -> None:
    together = view_uniforms(key_of(3, 9, 4), Purpose.CROP, views=range(10), draws=5)
    alone = view_uniforms(key_of(9), Purpose.CROP, views=range(8, 10), draws=2)
    assert np.array_equal(together[8:, 1:2, :2], alone)


@pytest.mark.parametrize(
    "other", [key_of(3, seed=2), key_of(3, epoch=3), key_of(4)], ids=["seed", "epoch", "sample"]
)
def test_another_name_draws_other_numbers(other: ViewKey) -> None:
    mine, theirs = (
        view_uniforms(key, Purpose.CROP, views=range(50), draws=50).ravel()
        for key in (key_of(3), other)
    )
    assert abs(np.corrcoef(mine, theirs)[0, 1]) < 4 / np.sqrt(mine.size)


def test_purposes_do_not_share_numbers() -> None:
    crop, drop = (
        view_uniforms(key_of(3), purpose, views=range(2), draws=9)
        for purpose in (Purpose.CROP, Purpose.SENSOR_DROP)
    )
    assert not np.intersect1d(crop, drop).size


def test_numbers_are_uniform_along_every_part_of_the_name() -> None:
    uniforms = view_uniforms(key_of(*range(100)), Purpose.CROP, views=range(10), draws=20)
    for axis in range(3):
        for line in np.moveaxis(uniforms, axis, 0)[:5]:
            assert stats.kstest(line.ravel(), "uniform").pvalue > 1e-4


def test_neighbouring_draws_are_uncorrelated() -> None:
    uniforms = view_uniforms(key_of(*range(200)), Purpose.CROP, views=range(10), draws=20)
    for axis in range(3):
        lines = np.moveaxis(uniforms, axis, 0)
        correlation = np.corrcoef(lines[:-1].ravel(), lines[1:].ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(lines[1:].size)

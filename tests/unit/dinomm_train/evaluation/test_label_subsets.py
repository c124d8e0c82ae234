import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dinomm_train.evaluation.label_subsets import draw_subset, fraction_text


def random_labels(seed: int, count: int, classes: int) -> np.ndarray:
    """Multi-label rows whose classes are from frequent to rare."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, classes)) < 0.6 / (1 + np.arange(classes))).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 300),
    classes=st.integers(1, 8),
    fraction=st.floats(0.005, 1.0),
)
def test_a_subset_is_of_the_size_asked_for_and_holds_no_sample_twice(
    seed: int, count: int, classes: int, fraction: float
) -> None:
    labels = random_labels(seed, count, classes)
    found = draw_subset(labels, fraction=fraction, seed=seed)
    assert len(found) == max(1, round(fraction * count))
    assert len(set(found.tolist())) == len(found)
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) <= set(range(count))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), fraction=st.floats(0.02, 0.5))
def test_every_class_keeps_its_share_and_at_least_one_sample(seed: int, fraction: float) -> None:
    labels = random_labels(seed, 2000, 12)
    labels[:, 11] = 0
    labels[seed, 11] = 1
    drawn = labels[draw_subset(labels, fraction=fraction, seed=seed)].sum(axis=0)
    share = fraction * labels.sum(axis=0)
    assert drawn[11] == 1
    assert (drawn[:11] >= np.floor(share[:11]) - 4).all()
    assert (drawn[:6] <= 1.2 * share[:6] + 2).all(), "frequent classes are not drawn too often"


def test_a_random_draw_of_the_same_size_loses_classes_that_the_subset_keeps() -> None:
    labels = np.zeros((5000, 10), dtype=np.uint8)
    labels[:, 0] = 1
    labels[np.arange(9), np.arange(1, 10)] = 1
    assert labels[draw_subset(labels, fraction=0.01, seed=0)].any(axis=0).all()
    plain = np.random.default_rng(0).choice(5000, 50, replace=False)
    assert not labels[plain].any(axis=0).all()


def test_the_seed_decides() -> None:
    labels = random_labels(0, 400, 5)
    first, again, other = (draw_subset(labels, fraction=0.1, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_shares_that_differ_are_called_differently() -> None:
    assert fraction_text(1.0) == "1"
    assert fraction_text(0.01) == "0.01"
    assert fraction_text(0.12345678) != fraction_text(0.12345679)
    assert fraction_text(1e-5) == "0.00001"

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from dinomm_train.evaluation import bootstrap
from dinomm_train.evaluation.bootstrap import draw_resamples, interval, resample_scores


def random_case(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with many ties, a class without positives and one with a single one."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 5)) < 0.3).astype(np.uint8)
    labels[:, 1] = 0
    labels[:, 2] = np.arange(count) == 0
    return labels, (rng.integers(0, 9, (count, 5)) / 8).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_every_resample_equal_scikit_learns_on_its_samples(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_NUMBERS_AT_ONCE", 1000)
    labels, probabilities = random_case(seed, 40)
    counts = draw_resamples(labels, 25, seed)
    found = resample_scores(labels, probabilities, counts)
    for number, row in enumerate(counts):
        drawn = np.repeat(np.arange(40), row)
        truth, scores = labels[drawn], probabilities[drawn]
        there = np.flatnonzero(truth.any(axis=0))
        predicted = scores >= 0.5
        expected = {
            "micro_ap": average_precision_score(truth.ravel(), scores.ravel()),
            "macro_ap": np.mean(
                [average_precision_score(truth[:, i], scores[:, i]) for i in there]
            ),
            "micro_f1": f1_score(truth.ravel(), predicted.ravel()),
            "macro_f1": np.mean([f1_score(truth[:, i], predicted[:, i]) for i in there]),
        }
        assert {name: one[number] for name, one in found.items()} == pytest.approx(
            expected, abs=1e-9
        )


def test_a_resample_draws_as_many_as_there_are_and_repeats_with_its_seed() -> None:
    labels = np.ones((50, 1), dtype=np.uint8)
    counts = draw_resamples(labels, 30, 0)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts.max(axis=1) > 1).all(), "with replacement"
    assert np.array_equal(counts, draw_resamples(labels, 30, 0))
    assert not np.array_equal(counts, draw_resamples(labels, 30, 1))


def test_every_resample_of_a_nearly_unlabelled_split_can_be_scored() -> None:
    labels = np.zeros((50, 3), dtype=np.uint8)
    labels[7, 1] = 1
    counts = draw_resamples(labels, 100, 0)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts[:, 7] > 0).all()
    for scores in resample_scores(labels, np.full((50, 3), 0.5, np.float32), counts).values():
        assert np.isfinite(scores).all()
    with pytest.raises(ValueError, match="no sample has a label"):
        draw_resamples(np.zeros_like(labels), 1, 0)


def test_the_interval_holds_ninety_five_percent() -> None:
    scores = np.linspace(0, 1, 1001)
    assert interval(0.5, scores) == pytest.approx((0.025, 0.975))
    assert interval(0.3, scores) == pytest.approx((-0.175, 0.775)), "around the estimate"


def test_the_interval_covers_the_true_score_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)

    def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (rng.random((count, 1)) < 0.4).astype(np.uint8)
        return labels, (labels + rng.normal(size=(count, 1))).astype(np.float32)

    truth = average_precision_score(*(one.ravel() for one in sample(200_000)))
    counts = draw_resamples(np.ones((150, 1), dtype=np.uint8), 200, 1)
    covered = 0
    for _ in range(200):
        labels, scores = sample(150)
        estimate = average_precision_score(labels.ravel(), scores.ravel())
        low, high = interval(estimate, resample_scores(labels, scores, counts)["micro_ap"])
        covered += low <= truth <= high
    assert 0.88 <= covered / 200 <= 0.99

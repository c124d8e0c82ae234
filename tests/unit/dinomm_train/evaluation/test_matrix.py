import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from dinomm_train.evaluation.bootstrap import draw_resamples
from dinomm_train.evaluation.breakdown import Group
from dinomm_train.evaluation.config import Protocol, SensorPair
from dinomm_train.evaluation.jobs import Prediction
from dinomm_train.evaluation.matrix import RowKey, ScoredSamples, build_rows

COUNT = 60
RNG = np.random.default_rng(0)
LABELS = (RNG.random((COUNT, 3)) < 0.4).astype(np.uint8)
LABELS[:, 2] = 0


def key(network: str, protocol: Protocol = "knn") -> RowKey:
    return RowKey(
        network=network, protocol=protocol, sensors=SensorPair(train="s1", test="s1"), fraction=1.0
    )


def prediction(seed: int, skill: float) -> Prediction:
    noise = np.random.default_rng(seed).random((COUNT, 3))
    return Prediction(
        probabilities=(skill * LABELS + noise).astype(np.float32), details={"seed": seed}
    )


def micro(one: Prediction, chosen: np.ndarray | slice = slice(None)) -> float:
    return float(average_precision_score(LABELS[chosen].ravel(), one.probabilities[chosen].ravel()))


@pytest.fixture
def samples() -> ScoredSamples:
    members = np.arange(COUNT) < 20
    return ScoredSamples(
        labels=LABELS,
        class_names=("a", "b", "c"),
        groups=(
            Group(kind="half", name="first", members=members),
            Group(kind="half", name="second", members=~members),
        ),
        resamples=draw_resamples(LABELS, 200, 0),
    )


def test_a_row_has_mean_and_spread_over_seeds_and_an_interval_around_them(
    samples: ScoredSamples,
) -> None:
    seeds = [prediction(seed, 0.5) for seed in range(3)]
    (row,) = build_rows({key("checkpoint"): seeds}, samples)
    scores = [micro(one) for one in seeds]
    found = row.scores["micro_ap"]
    assert found.mean == pytest.approx(np.mean(scores))
    assert found.spread == pytest.approx(np.std(scores, ddof=1))
    assert found.low < found.mean < found.high
    assert [one.ap is None for one in row.classes] == [False, False, True]
    assert [one["seed"] for one in row.details] == [0, 1, 2]
    assert row.gains == {}


def test_one_seed_has_no_spread(samples: ScoredSamples) -> None:
    (row,) = build_rows({key("checkpoint"): [prediction(0, 0.5)]}, samples)
    assert row.scores["micro_ap"].spread is None


def test_groups_are_scored_by_themselves(samples: ScoredSamples) -> None:
    seeds = [prediction(seed, 0.5) for seed in range(2)]
    (row,) = build_rows({key("checkpoint"): seeds}, samples)
    assert [(one.name, one.samples) for one in row.groups] == [("first", 20), ("second", 40)]
    expected = np.mean([micro(one, slice(20)) for one in seeds])
    assert row.groups[0].micro_ap == pytest.approx(expected)


def test_a_gain_is_over_the_untrained_network_with_an_interval_of_the_difference(
    samples: ScoredSamples,
) -> None:
    random, good = prediction(0, 0.3), prediction(0, 0.34)
    rows = build_rows({key("random"): [random], key("checkpoint"): [good]}, samples)
    assert rows[0].gains == {}
    gain = rows[1].gains["micro_ap"]
    assert gain.mean == pytest.approx(micro(good) - micro(random))
    apart = rows[1].scores["micro_ap"]
    assert gain.high - gain.low < 0.5 * (apart.high - apart.low), "they share their noise"


def test_fine_tuning_gains_over_training_from_scratch(samples: ScoredSamples) -> None:
    rows = build_rows(
        {
            key("checkpoint", "finetune"): [prediction(0, 0.9)],
            key("supervised", "finetune"): [prediction(1, 0.3)],
        },
        samples,
    )
    assert rows[0].gains["micro_ap"].mean > 0
    assert rows[1].gains == {}

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinomm_train.errors import TrainError
from dinomm_train.evaluation.scores import score_probabilities


def average_precision(labels: list[int], scores: list[float]) -> float:
    """Sum over distinct thresholds of the recall gained times the precision there."""
    total, last_recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        hits = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        recall = sum(hits) / sum(labels)
        total += (recall - last_recall) * sum(hits) / len(hits)
        last_recall = recall
    return total


def f1(labels: list[int], scores: list[float]) -> float:
    pairs = [(label, score >= 0.5) for label, score in zip(labels, scores, strict=True)]
    hit = sum(1 for label, predicted in pairs if label and predicted)
    wrong = sum(1 for label, predicted in pairs if bool(label) != predicted)
    return 2 * hit / (2 * hit + wrong) if hit + wrong else 0.0


def random_case(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with many ties, a class without positives and one that all have."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 5)) < 0.3).astype(np.uint8)
    labels[:, 1], labels[:, 2] = 0, 1
    return labels, rng.integers(0, 5, (count, 5)) / 4


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), count=st.integers(1, 30))
def test_micro_and_macro_equal_the_definitions_with_ties_and_empty_classes(
    seed: int, count: int
) -> None:
    labels, probabilities = random_case(seed, count)
    found = score_probabilities(labels, probabilities, tuple("abcde"))
    present = [i for i in range(5) if labels[:, i].any()]
    columns = [(labels[:, i].tolist(), probabilities[:, i].tolist()) for i in present]
    pooled = labels.ravel().tolist(), probabilities.ravel().tolist()
    assert found.micro_ap == pytest.approx(average_precision(*pooled), abs=1e-9)
    assert found.micro_f1 == pytest.approx(f1(*pooled), abs=1e-9)
    assert found.macro_ap == pytest.approx(np.mean([average_precision(*c) for c in columns]))
    assert found.macro_f1 == pytest.approx(np.mean([f1(*c) for c in columns]))
    assert found.classes[2].positives == count


def test_a_class_without_positives_is_listed_and_has_no_score() -> None:
    labels, probabilities = random_case(1, 40)
    found = score_probabilities(labels, probabilities, tuple("abcde"))
    assert found.classes_without_positives == ("b",)
    assert (found.classes[1].ap, found.classes[1].f1) == (None, None)


def test_a_split_without_any_label_is_refused() -> None:
    with pytest.raises(TrainError, match="none of the 3 samples"):
        score_probabilities(np.zeros((3, 2), np.uint8), np.ones((3, 2)), ("a", "b"))

"""Multi-label scores over a whole split, never averaged over batches."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.metrics import average_precision_score, f1_score

from dinomm_train.errors import TrainError

DECISION_THRESHOLD = 0.5
"""A class counts as predicted from this probability on; only F1 depends on it."""

CONVENTION = (
    "Scores are over the whole split. AP is the step-wise area under the precision-recall curve "
    "(scikit-learn average_precision_score). Micro pools all sample-class pairs; macro is the "
    "plain mean over classes with at least one positive. F1 is at threshold "
    f"{DECISION_THRESHOLD}."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """How well one class is found."""

    name: str
    positives: int
    """Samples of the split that have the class."""

    ap: float | None
    """Average precision; none where the split has no positive."""

    f1: float | None
    """F1 at the decision threshold; none where the split has no positive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One split's scores; all in [0, 1], higher is better."""

    micro_ap: float
    macro_ap: float
    micro_f1: float
    macro_f1: float
    classes: tuple[ClassScore, ...]

    @property
    def classes_without_positives(self) -> tuple[str, ...]:
        """Names of the classes that the macro scores leave out."""
        return tuple(score.name for score in self.classes if score.positives == 0)


def score_probabilities(
    labels: UInt8[np.ndarray, "sample class"],
    probabilities: Float[np.ndarray, "sample class"],
    class_names: tuple[str, ...],
) -> Scores:
    """Micro, macro and per-class AP and F1 of predicted class probabilities.

    Raises:
        TrainError: no sample has any label, so that nothing can be scored.
    """
    positives = labels.sum(axis=0, dtype=np.int64)
    scored = np.flatnonzero(positives).tolist()
    if not scored:
        raise TrainError(
            f"none of the {len(labels)} samples to score has a label; "
            "check the labels in the dataset's manifest"
        )
    predicted = (probabilities >= DECISION_THRESHOLD).astype(np.uint8)
    ap = {i: float(average_precision_score(labels[:, i], probabilities[:, i])) for i in scored}
    f1 = {i: float(f1_score(labels[:, i], predicted[:, i], zero_division=0.0)) for i in scored}
    return Scores(
        micro_ap=float(average_precision_score(labels.ravel(), probabilities.ravel())),
        macro_ap=float(np.mean(list(ap.values()))),
        micro_f1=float(f1_score(labels.ravel(), predicted.ravel(), zero_division=0.0)),
        macro_f1=float(np.mean(list(f1.values()))),
        classes=tuple(
            ClassScore(name=name, positives=int(positives[i]), ap=ap.get(i), f1=f1.get(i))
            for i, name in enumerate(class_names)
        ),
    )

"""A small evaluation, made up: scores of random predictions, some better than others."""

import functools

import numpy as np

from dinomm_train.evaluation.bootstrap import draw_resamples
from dinomm_train.evaluation.breakdown import Group
from dinomm_train.evaluation.config import SensorPair
from dinomm_train.evaluation.evaluation import Evaluation, EvaluationSetup, LegacyRow
from dinomm_train.evaluation.jobs import Prediction
from dinomm_train.evaluation.matrix import RowKey, ScoredSamples, build_rows

CLASSES = ("Water", "Forest, mixed", "Absent")
SAMPLES = 40
SKILL = {"random": 0.1, "rcf": 0.2, "checkpoint": 0.5}
PAIRS = (
    SensorPair(train="s1", test="s1"),
    SensorPair(train="s1+s2", test="s1+s2"),
    SensorPair(train="s1+s2", test="s1"),
)


@functools.cache
def make_evaluation(*, seeds: int = 2, fractions: tuple[float, ...] = (0.1, 1.0)) -> Evaluation:
    """Networks x pairs x two protocols x shares of labels; one class has no positive."""
    rng = np.random.default_rng(0)
    labels = (rng.random((SAMPLES, len(CLASSES))) < 0.4).astype(np.uint8)
    labels[:, 2] = 0

    def predictions(skill: float) -> list[Prediction]:
        return [
            Prediction(
                probabilities=(skill * labels + rng.random(labels.shape)).astype(np.float32),
                details={"learning_rate": 0.1},
            )
            for _ in range(seeds)
        ]

    first = np.arange(SAMPLES) < 15
    samples = ScoredSamples(
        labels=labels,
        class_names=CLASSES,
        groups=(
            Group(kind="season", name="winter", members=first),
            Group(kind="season", name="summer", members=~first),
        ),
        resamples=draw_resamples(labels, 30, 0),
    )
    rows = {
        RowKey(network=network, protocol=protocol, sensors=pair, fraction=fraction): predictions(
            skill * (0.5 + fraction)
        )
        for pair in PAIRS
        for fraction in fractions
        for protocol in ("knn", "linear")
        for network, skill in SKILL.items()
    }
    return Evaluation(
        setup=_setup(seeds, fractions),
        rows=build_rows(rows, samples),
        legacy=(
            LegacyRow(
                network="checkpoint",
                sensors="s1",
                fraction=1.0,
                batch_micro_ap=0.8712,
                micro_ap=0.8653,
                macro_ap=0.7,
                epoch=9,
            ),
        ),
        subsets={"labels-0.1-seed-0.txt": ("patch_b", "patch_a")},
    )


def _setup(seeds: int, fractions: tuple[float, ...]) -> EvaluationSetup:
    return EvaluationSetup(
        networks={name: f"where {name} comes from" for name in SKILL},
        checksums={name: name for name in SKILL},
        architecture={"name": "vit"},
        dataset="DATASET",
        dataset_checksum="0123",
        samples={"train": 1200, "test": SAMPLES},
        labelled={f"{one:g}": round(1200 * one) for one in fractions},
        positive_share=0.25,
        crop_px=120,
        input_px=112,
        fill=-1.0,
        seed=0,
        seeds=seeds,
        resamples=30,
        protocols={"knn": "neighbours", "linear": "a layer"},
        created_by="dinomm-train",
    )

"""From the predictions of all jobs to an evaluation: rows, legacy figures, and how it was done."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dinomm_train import __version__
from dinomm_train.evaluation.bootstrap import draw_resamples
from dinomm_train.evaluation.breakdown import group_samples
from dinomm_train.evaluation.config import EvaluationConfig, SensorPair, SensorSet
from dinomm_train.evaluation.describe import describe_protocol
from dinomm_train.evaluation.evaluation import Evaluation, EvaluationSetup, LegacyRow
from dinomm_train.evaluation.images import choose_crop
from dinomm_train.evaluation.jobs import Job, Prediction, pairs_of
from dinomm_train.evaluation.label_subsets import fraction_text
from dinomm_train.evaluation.matrix import RowKey, ScoredSamples, build_rows
from dinomm_train.evaluation.scores import score_probabilities
from dinomm_train.evaluation.workbench import Workbench

RESAMPLING_SEED = 0
"""Every evaluation draws the same resamples of a test split."""


def collect(bench: Workbench, done: Mapping[Job, Mapping[SensorSet, Prediction]]) -> Evaluation:
    """The evaluation that these predictions make.

    Raises:
        TrainError: no test sample has a label.
    """
    test, config = bench.splits["test"], bench.config
    samples = ScoredSamples(
        labels=test.labels,
        class_names=bench.dataset.card.labels.classes,
        groups=group_samples(test),
        resamples=draw_resamples(test.labels, config.bootstrap, RESAMPLING_SEED),
    )
    return Evaluation(
        setup=_describe(bench, done),
        rows=build_rows(_by_row(config, done), samples),
        legacy=tuple(
            _legacy_row(bench, job, found[job.train_sensors])
            for job, found in done.items()
            if job.protocol == "legacy"
        ),
        subsets=_subset_keys(bench),
    )


def _by_row(
    config: EvaluationConfig, done: Mapping[Job, Mapping[SensorSet, Prediction]]
) -> dict[RowKey, list[Prediction]]:
    """Every row's predictions by seed; rows by sensors, labels and protocol, then by network."""
    rows: dict[RowKey, list[Prediction]] = {}
    for job, found in done.items():
        for sensors, prediction in found.items() if job.protocol != "legacy" else ():
            key = RowKey(
                network=job.network,
                protocol=job.protocol,
                sensors=SensorPair(train=job.train_sensors, test=sensors),
                fraction=job.fraction,
            )
            rows.setdefault(key, []).append(prediction)
    pairs = pairs_of(config)
    order = sorted(
        rows, key=lambda key: (pairs.index(key.sensors), key.fraction, _place(config, key))
    )
    return {key: rows[key] for key in order}


def _place(config: EvaluationConfig, key: RowKey) -> int:
    """Of the row's protocol; training from scratch may be there without having been asked for."""
    wanted = config.protocols
    return wanted.index(key.protocol) if key.protocol in wanted else len(wanted)


def _legacy_row(bench: Workbench, job: Job, found: Prediction) -> LegacyRow:
    scores = score_probabilities(
        bench.splits["validation"].labels,
        found.probabilities,
        bench.dataset.card.labels.classes,
    )
    return LegacyRow(
        network=job.network,
        sensors=job.train_sensors,
        fraction=job.fraction,
        batch_micro_ap=float(found.details["batch_micro_ap"]),
        micro_ap=scores.micro_ap,
        macro_ap=scores.macro_ap,
        epoch=int(found.details["epoch"]),
    )


def _subset_keys(bench: Workbench) -> dict[str, tuple[str, ...]]:
    config, train = bench.config, bench.splits["train"]
    keys = np.array(train.table["key"].to_pylist(), dtype=object)
    return {
        f"labels-{fraction_text(fraction)}-seed-{seed}.txt": tuple(
            keys[bench.labelled(fraction, seed).drawn]
        )
        for fraction in config.label_fractions
        if fraction < 1
        for seed in range(config.seeds)
    }


def _describe(bench: Workbench, done: Mapping[Job, object]) -> EvaluationSetup:
    config, dataset = bench.config, bench.dataset
    subject = bench.subject
    assert subject.frozen is not None
    assert subject.size is not None
    crop_px = choose_crop(dataset.card.patch.size_px, config.extraction)
    return EvaluationSetup(
        networks={name: one.origin for name, one in bench.contestants.items()},
        checksums={name: one.checksum for name, one in bench.contestants.items()},
        architecture=dataclasses.asdict(subject.frozen.architecture),
        dataset=dataset.location,
        dataset_checksum=dataset.checksum,
        samples={name: len(split) for name, split in bench.splits.items()},
        labelled={
            fraction_text(fraction): len(bench.labelled(fraction, 0).drawn)
            for fraction in config.label_fractions
        },
        positive_share=float(np.mean(bench.splits["test"].labels)),
        crop_px=crop_px,
        input_px=subject.size.input_px,
        fill=subject.frozen.expects.fill,
        seed=config.network.seed,
        seeds=config.seeds,
        resamples=config.bootstrap,
        protocols={
            name: describe_protocol(name, config, held_out="validation" not in bench.splits)
            for name in dict.fromkeys(job.protocol for job in done)
        },
        created_by=f"dinomm-train {__version__}",
    )

"""Where jobs are done: the dataset, features and labels at hand, and the device."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bigearth_prep.terminal import progress_bar
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import (
    CHECKPOINT,
    RANDOM,
    SUPERVISED,
    EvaluationConfig,
    SensorSet,
)
from dinomm_train.evaluation.contestants import Contestant
from dinomm_train.evaluation.encoders import Encoder
from dinomm_train.evaluation.features import FeatureStore, LabelledFeatures
from dinomm_train.evaluation.jobs import Details, Job, Prediction, protocol_settings
from dinomm_train.evaluation.label_subsets import draw_subset
from dinomm_train.evaluation.protocol_config import FinetuneConfig, LegacyConfig, LinearConfig
from dinomm_train.evaluation.protocols.finetune import FinetuneTask, finetune, predict_split
from dinomm_train.evaluation.protocols.knn import knn_votes
from dinomm_train.evaluation.protocols.legacy import LegacyTask, run_legacy
from dinomm_train.evaluation.protocols.linear_probe import choose_probe, fit_linear_probes
from dinomm_train.evaluation.protocols.logistic_probe import choose_l2, fit_logistic_probes

HELD_OUT_SHARE = 0.2
"""Of the labelled samples, where a dataset has no validation split to choose on."""

_TABLES_KEPT = 3
"""Tables of features in memory: one sensor set's of train, validation and test."""


_Predictor = Callable[[Tensor], Tensor]
"""From a table of features to class probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Positions of the samples whose labels a job may use."""

    drawn: Int64[np.ndarray, " labelled"]
    """In the train split: those whose labels are used at all."""

    train: Int64[np.ndarray, " learnt"]
    """Those of them that are learnt from."""

    chooser: str
    """Split that choices are made on."""

    chosen: Int64[np.ndarray, " chooser"]
    """Positions in that split."""


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Everything that jobs share."""

    config: EvaluationConfig
    dataset: StoredDataset
    splits: Mapping[str, StoredSplit]
    contestants: Mapping[str, Contestant]
    stores: Mapping[str, FeatureStore]
    device: torch.device
    _read: Callable[[str, str, SensorSet], Float32[Tensor, "sample feature"]] = field(init=False)

    def __post_init__(self) -> None:
        kept = functools.lru_cache(maxsize=_TABLES_KEPT)(self._read_table)
        object.__setattr__(self, "_read", kept)

    @property
    def subject(self) -> Contestant:
        """The contestant that the evaluation is about."""
        return self.contestants[self.subject_name]

    @property
    def subject_name(self) -> str:
        """Its name in the table."""
        name = self.config.network.checkpoint
        return name if name in (RANDOM, SUPERVISED) else CHECKPOINT

    def run(self, job: Job) -> dict[SensorSet, Prediction]:
        """The job's predictions by test sensor set; of the validation split for `legacy`."""
        match job.protocol:
            case "knn" | "linear" | "logistic":
                return self._run_on_features(job)
            case "finetune":
                return self._run_finetune(job)
            case "legacy":
                return self._run_legacy(job)

    def labelled(self, fraction: float, seed: int) -> Labelled:
        """The samples whose labels are used at this fraction under this seed."""
        return choose_labelled(self.splits, fraction, seed)

    def _run_on_features(self, job: Job) -> dict[SensorSet, Prediction]:
        encoder = self.contestants[job.network].encoder
        assert encoder is not None
        labelled = self.labelled(job.fraction, job.seed)
        train = self._table(job.network, "train", job.train_sensors).at(labelled.train)
        plain = encoder.plain.slice
        details: Details = {}
        if job.protocol == "knn":
            predict: _Predictor = functools.partial(_vote, train, plain)
        else:
            chooser = self._table(job.network, labelled.chooser, job.train_sensors)
            chooser = chooser.at(labelled.chosen)
            if job.protocol == "logistic":
                predict, details = _fit_logistic(train, chooser, plain)
            else:
                settings = self.config.linear
                predict, details = _fit_linear(train, chooser, encoder, settings, seed=job.seed)
        return {
            sensors: Prediction(
                probabilities=predict(self._read(job.network, "test", sensors))
                .float()
                .cpu()
                .numpy(),
                details=details,
            )
            for sensors in job.test_sensors
        }

    def _run_finetune(self, job: Job) -> dict[SensorSet, Prediction]:
        contestant, settings = self.contestants[job.network], protocol_settings(job, self.config)
        assert contestant.frozen is not None
        assert contestant.size is not None
        assert isinstance(settings, FinetuneConfig)
        labelled = self.labelled(job.fraction, job.seed)
        task = FinetuneTask(
            frozen=contestant.frozen,
            size=contestant.size,
            dataset=self.dataset,
            train=self.splits["train"],
            positions=labelled.train,
            validation=self.splits[labelled.chooser],
            validation_positions=labelled.chosen,
            sensors=job.train_sensors,
            seed=job.seed,
            device=self.device,
        )
        rounds = settings.epochs * len(settings.learning_rates)
        label = f"labelled patches through {job.network}, {job.train_sensors}"
        with progress_bar(rounds * len(labelled.train), label) as advance:
            best = finetune(task, settings, advance)
        details: Details = {
            "learning_rate": best.learning_rate,
            "epoch": best.epoch,
            "validation_micro_ap": best.validation_micro_ap,
        }
        test = self.splits["test"]
        positions = np.arange(len(test))
        return {
            sensors: Prediction(
                probabilities=predict_split(best.model, task, test, positions, sensors),
                details=details,
            )
            for sensors in job.test_sensors
        }

    def _run_legacy(self, job: Job) -> dict[SensorSet, Prediction]:
        frozen, settings = self.contestants[job.network].frozen, protocol_settings(job, self.config)
        assert frozen is not None
        assert isinstance(settings, LegacyConfig)
        task = LegacyTask(
            frozen=frozen,
            dataset=self.dataset,
            train=self.splits["train"],
            validation=self.splits["validation"],
            fraction=job.fraction,
            sensors=job.train_sensors,
            seed=job.seed,
            device=self.device,
        )
        samples = max(1, int(job.fraction * len(task.train)))
        total = settings.epochs * samples + len(task.validation)
        with progress_bar(total, f"patches, legacy, {job.network}, {job.train_sensors}") as advance:
            score = run_legacy(task, settings, advance)
        details: Details = {
            "batch_micro_ap": score.batch_micro_ap,
            "epoch": score.epoch,
        }
        prediction = Prediction(probabilities=score.probabilities, details=details)
        return {job.train_sensors: prediction}

    def _table(self, network: str, split: str, sensors: SensorSet) -> LabelledFeatures:
        labels = torch.from_numpy(self.splits[split].labels).to(self.device)
        return LabelledFeatures(features=self._read(network, split, sensors), labels=labels)

    def _read_table(self, network: str, split: str, sensors: SensorSet) -> Tensor:
        rows = self.stores[network].read(self.splits[split], sensors)
        return torch.from_numpy(rows).to(self.device)


def choose_labelled(splits: Mapping[str, StoredSplit], fraction: float, seed: int) -> Labelled:
    """The samples whose labels are used: a share of train, and validation or else some of train.

    Raises:
        TrainError: without validation, one labelled sample cannot be learnt from and choose too.
    """
    train = splits["train"]
    positions = np.arange(len(train))
    if fraction < 1.0:
        positions = draw_subset(train.labels, fraction=fraction, seed=seed)
    if "validation" in splits:
        return Labelled(
            drawn=positions,
            train=positions,
            chooser="validation",
            chosen=np.arange(len(splits["validation"])),
        )
    if len(positions) < 2:
        raise TrainError(
            f"--label-fraction {fraction:g} of {len(train)} train samples is {len(positions)}, and "
            "without validation samples one of them must choose: at least 2 are needed; give a "
            "larger share, or build shards with a validation split"
        )
    shuffled = np.random.default_rng(seed).permutation(positions)
    count = max(1, round(HELD_OUT_SHARE * len(positions)))
    return Labelled(
        drawn=positions,
        train=np.sort(shuffled[count:]),
        chooser="train",
        chosen=np.sort(shuffled[:count]),
    )


def _vote(train: LabelledFeatures, plain: slice, queries: Tensor) -> Tensor:
    return knn_votes(train.features[:, plain], train.labels, queries[:, plain])


def _fit_logistic(
    train: LabelledFeatures, chooser: LabelledFeatures, plain: slice
) -> tuple[_Predictor, Details]:
    probes = fit_logistic_probes(train.features[:, plain], train.labels)
    best = choose_l2(probes, chooser.features[:, plain], chooser.labels)
    return lambda rows: probes.probabilities(rows[:, plain], best.index), {"l2": best.l2}


def _fit_linear(
    train: LabelledFeatures,
    chooser: LabelledFeatures,
    encoder: Encoder,
    settings: LinearConfig,
    *,
    seed: int,
) -> tuple[_Predictor, Details]:
    probes = fit_linear_probes(train.features, train.labels, encoder.choices, settings, seed=seed)
    best = choose_probe(probes, chooser.features, chooser.labels)
    details: Details = {
        "features": probes.columns[best.choice].name,
        "learning_rate": probes.learning_rates[best.rate],
        "validation_micro_ap": best.validation_micro_ap,
    }
    return lambda rows: probes.probabilities(rows, best.choice, best.rate), details

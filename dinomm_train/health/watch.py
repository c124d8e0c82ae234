"""When a run is looked at, and at which patches."""

import logging
import time
from pathlib import Path

import numpy as np

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.health.collapse import CollapseAlarm
from dinomm_train.health.look import MustStop, Row, look_at
from dinomm_train.health.patches import FixedPatches, HeldOut, choose_held_out, spread
from dinomm_train.health.quick_knn import score_neighbours
from dinomm_train.learner import Learner
from dinomm_train.metrics import read_health
from dinomm_train.schedules import step_values

_log = logging.getLogger(__name__)

_PROTOTYPES = "health/{state}/prototypes_in_use"
_SHOWN = (
    ("health/{state}/loss", "loss", 2),
    ("health/{state}/teacher_entropy", "teacher entropy", 2),
    (_PROTOTYPES, "prototypes", 0),
    ("health/{state}/rankme", "RankMe", 1),
    ("knn/{state}/micro_ap", "kNN micro AP", 3),
)


class HealthWatch:
    """One rank's part in looking at a run; every rank takes part equally often.

    Nothing that a run learns depends on it: no weight, no centre and no generator moves.
    """

    def __init__(self, dataset: StoredDataset, learner: Learner, steps_per_epoch: int) -> None:
        self._learner = learner
        self._steps_per_epoch = steps_per_epoch
        config = learner.config.health
        self._every_steps = config.every_steps or steps_per_epoch
        self._knn_every_steps = config.knn_every_epochs * steps_per_epoch
        train = dataset.split("train")
        train = train.first(learner.config.sampling.sample_limit or len(train))
        # Half of a train split that has to serve for both stays for neighbours to be found in.
        most = min(max(config.samples, config.knn_queries), len(train) // 2)
        held_out = choose_held_out(dataset, train, most)
        self.patches = _choose(
            held_out.split, held_out.candidates, config.samples, dataset, learner
        )
        self.queries = _choose(
            held_out.split, held_out.candidates, config.knn_queries, dataset, learner
        )
        others = np.arange(held_out.candidates[0] if held_out.is_trained_on else len(train))
        self.bank = _choose(train, others, config.knn_bank, dataset, learner)
        self._looks = len(self.patches) > 1
        prototypes = learner.config.head.prototypes
        self._most_prototypes = min(prototypes, len(self.patches))
        self._patience = config.patience
        self._alarm = CollapseAlarm(prototypes=prototypes, patience=config.patience)
        self._has_labels = bool(self.bank.labels.any() and self.queries.labels.any())
        if learner.ranks.is_first:
            self._announce(held_out)

    def look(self, steps_done: int, must_stop: MustStop) -> Row:
        """What is due after this many steps; nothing where nothing is, or all agreed to stop."""
        start_s = time.perf_counter()
        row: Row = {}
        if self._looks and steps_done % self._every_steps == 0:
            values = step_values(
                steps_done - 1, self._learner.config, steps_per_epoch=self._steps_per_epoch
            )
            row |= look_at(self._learner, self.patches, values.teacher_temperature, must_stop)
        if self._is_knn_due(steps_done):
            row |= score_neighbours(self._learner, self.bank, self.queries, must_stop)
        if row:
            row["health/seconds"] = time.perf_counter() - start_s
        return row

    def resume(self, run: Path, steps_done: int) -> None:
        """Go on with warnings where the run's rows up to this step left them."""
        self._alarm.resume(read_health(run, until_step=steps_done))

    def report(self, steps_done: int, row: Row) -> None:
        """Say what a look has found, and warn of collapse."""
        found = describe(row, most_prototypes=self._most_prototypes)
        _log.info("held-out patches after step %d: %s", steps_done, found)
        self._alarm.note(row)

    def warn_if_too_short(self, last_step: int) -> None:
        """Warn where a run that ends after this step has too few looks to warn of collapse."""
        looks = last_step // self._every_steps
        if self._looks and looks < self._patience:
            _log.warning(
                "up to step %d there are %d look(s), and a warning of collapse takes %d, "
                "not before step %d; set health.every_steps or health.patience lower",
                last_step,
                looks,
                self._patience,
                self._patience * self._every_steps,
            )

    def _is_knn_due(self, steps_done: int) -> bool:
        every = self._knn_every_steps
        return self._has_labels and every > 0 and steps_done % every == 0

    def _announce(self, held_out: HeldOut) -> None:
        if self._looks:
            _log.info(
                "every %d steps, %d patches of %s are looked at%s",
                self._every_steps,
                len(self.patches),
                held_out.split.name,
                ", which training sees too: there is no validation split"
                if held_out.is_trained_on
                else "",
            )
        if self._knn_every_steps and not self._has_labels:
            _log.warning("patches have no labels, so that nearest neighbours are not scored")


def _choose(
    split: StoredSplit,
    candidates: np.ndarray,
    count: int,
    dataset: StoredDataset,
    learner: Learner,
) -> FixedPatches:
    return FixedPatches.of(split, spread(candidates, count), dataset, learner.config)


def describe(row: Row, *, most_prototypes: int) -> str:
    """The row's main numbers in one line, with both sensors / radar alone / optics alone.

    As a patch has one first choice, no more prototypes than patches can be in use.
    """
    parts = [
        f"{words} {' / '.join(values)}"
        + (f" of at most {most_prototypes:,}" if name == _PROTOTYPES else "")
        for name, words, digits in _SHOWN
        if (values := [f"{row[key]:.{digits}f}" for key in _keys(name) if key in row])
    ]
    return ", ".join(parts)


def _keys(name: str) -> list[str]:
    return [name.format(state=state) for state in ("both", "s1", "s2")]

"""Signs that a run collapses, read off assignments and features: a falling loss proves nothing."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping

_log = logging.getLogger(__name__)

UNIFORM_SHARE = 0.995
"""Of ln(prototypes). A teacher whose mean entropy is above assigns every patch evenly to all
prototypes, one of the two collapses of DINO (arXiv:2104.14294, section 5.3, figure 7): the loss
then stands still at ln(prototypes). The published run is below 0.92 within its first epoch."""

FEWEST_PROTOTYPES = 4.0
"""Perplexity of the mean assignment. A teacher below sorts patches into fewer bins than four and
so says under two bits of each: the other collapse, one dimension that dominates."""

ALIKE_COSINE = 0.9999
"""Mean cosine between different patches. Above, features are less than one degree apart: they are
all but constant. An untrained ViT of random weights is at 0.95 to 0.999, one sensor or both."""

LEAST_RANK = 1.1
"""RankMe. Below, one direction holds over 98 % of the sum of singular values (of two shares 0.98
and 0.02 the entropy is ln 1.1)."""

_LOOKED_AT = "health/both/loss"
"""Rows without hold nearest neighbours alone."""

_STATES = {"both": "all bands", "s1": "radar alone", "s2": "optics alone"}


class CollapseAlarm:
    """Warns once when a sign has been there for some looks in a row, and once when it has gone."""

    def __init__(self, *, prototypes: int, patience: int) -> None:
        self._prototypes = prototypes
        self._patience = patience
        self._looks: dict[str, int] = {}
        """How many looks in a row have shown each sign."""

    def resume(self, rows: Iterable[Mapping[str, int | float]]) -> None:
        """Take up the count after these rows of a run that goes on, without a word."""
        for row in rows:
            if _LOOKED_AT in row:
                self._count(find_signs(row, prototypes=self._prototypes))

    def note(self, row: Mapping[str, int | float]) -> None:
        """Count a look's signs, and warn where that is due."""
        if _LOOKED_AT not in row:
            return
        before = self._looks
        signs = find_signs(row, prototypes=self._prototypes)
        self._count(signs)
        for name, finding in signs.items():
            if self._looks[name] == self._patience:
                _log.warning(
                    "collapse: %s, for %d looks in a row; %s", name, self._patience, finding
                )
        for name in before.keys() - signs.keys():
            if before[name] >= self._patience:
                _log.warning("collapse: %s has gone", name)

    def _count(self, signs: Mapping[str, str]) -> None:
        self._looks = {name: self._looks.get(name, 0) + 1 for name in signs}


def find_signs(row: Mapping[str, int | float], *, prototypes: int) -> dict[str, str]:
    """The signs of collapse in a row of health: finding and advice by the sign's name."""
    return {
        f"{name} ({words})": finding
        for state, words in _STATES.items()
        if f"health/{state}/loss" in row
        for name, finding in _signs_of_state(row, f"health/{state}/", prototypes)
    }


def _signs_of_state(
    row: Mapping[str, int | float], prefix: str, prototypes: int
) -> Iterator[tuple[str, str]]:
    entropy, perplexity = row[prefix + "teacher_entropy"], row[prefix + "prototype_perplexity"]
    cosine, rank = row[prefix + "mean_cosine"], row[prefix + "rankme"]
    most = math.log(prototypes)
    if entropy > UNIFORM_SHARE * most:
        yield (
            "uniform assignment",
            f"the teacher's entropy is {entropy:.3f} of at most {most:.3f} nats (expected below "
            f"{UNIFORM_SHARE:.1%}); lower loss.teacher_temperature or schedule.lr",
        )
    if perplexity < FEWEST_PROTOTYPES:
        yield (
            "few prototypes",
            f"the teacher uses {perplexity:.2f} of {prototypes:,} (expected at least "
            f"{FEWEST_PROTOTYPES:g}); lower loss.centre_momentum or schedule.lr",
        )
    # Written so that NaN, which features that are not finite give, is a sign too.
    if not cosine <= ALIKE_COSINE:
        yield (
            "constant features",
            f"the cosine between different patches is {cosine:.6f} (expected below "
            f"{ALIKE_COSINE}); lower schedule.lr, and look at the dataset with bigearth-prep "
            "inspect",
        )
    if not rank >= LEAST_RANK:
        yield (
            "low rank",
            f"RankMe is {rank:.3f} (expected above {LEAST_RANK}); lower schedule.lr, and look at "
            "the dataset with bigearth-prep inspect",
        )

"""How much of a dataset is verified."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

_MOST_OF_ONE_KIND = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """How much of a dataset is read."""

    samples: int | None = None
    """Samples whose bytes are read, of all splits together; all by default.

    With fewer than there are, files are held against their size and not against their checksum.
    """

    seed: int = 0
    """Which samples those are."""

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples must be positive, got {self.samples}")

    def reads_all(self, total: int) -> bool:
        """Whether every byte of a dataset of so many samples is read."""
        return self.samples is None or self.samples >= total

    def chosen(self, total: int) -> Bool[np.ndarray, " sample"]:
        """Which of so many samples are read."""
        mask = np.full(total, fill_value=self.reads_all(total))
        if not mask.all():
            mask[draw_samples(total, self.samples or total, self.seed)] = True
        return mask


def draw_samples(total: int, wanted: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """So many places out of `total`, each at most once, in order; all where fewer are there."""
    drawn = np.random.default_rng(seed).choice(total, min(wanted, total), replace=False)
    return np.sort(drawn).astype(np.int64)


def first_of(problems: Iterable[str], where: str) -> Iterator[str]:
    """The first few problems of one kind or place, and how many more there are."""
    more = 0
    for number, problem in enumerate(problems):
        if number < _MOST_OF_ONE_KIND:
            yield problem
        else:
            more += 1
    if more:
        yield f"{where}: {more:,} more problems"

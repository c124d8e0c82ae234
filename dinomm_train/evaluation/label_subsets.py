"""Few labels out of many: drawn without replacement, every class in proportion, rare ones kept."""

import numpy as np
from jaxtyping import Int64, UInt8


def draw_subset(
    labels: UInt8[np.ndarray, "sample class"], *, fraction: float, seed: int
) -> Int64[np.ndarray, " chosen"]:
    """Positions of a share of the samples, ascending; at least one sample.

    Classes are served from the rarest to the most frequent, as in iterative stratification
    (Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10): of the samples not yet decided that
    have the class, so many are drawn at random as it still lacks of its share, which is at least
    one sample, and the others are left out. Places that are left then go to samples that have no
    class, and only after them to samples that were left out.
    """
    count = max(1, round(fraction * len(labels)))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    shuffled = labels[order].astype(bool)
    drawn, decided = (np.zeros(len(labels), dtype=bool) for _ in range(2))
    frequencies = shuffled.sum(axis=0)
    for column in np.argsort(frequencies, kind="stable"):
        share = max(1, round(fraction * int(frequencies[column])))
        lacking = share - int(shuffled[drawn, column].sum())
        candidates = np.flatnonzero(shuffled[:, column] & ~decided)
        drawn[candidates[: max(0, min(lacking, count - int(drawn.sum())))]] = True
        decided[candidates] = True
    left = np.concatenate([np.flatnonzero(~decided), np.flatnonzero(decided & ~drawn)])
    drawn[left[: count - int(drawn.sum())]] = True
    return np.sort(order[drawn])


def fraction_text(fraction: float) -> str:
    """A share of labels in names of files and keys of JSON, where no two may be called the same."""
    return np.format_float_positional(fraction, trim="-")

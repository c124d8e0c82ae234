"""Few labels out of many: drawn without replacement, every class in proportion, rare ones kept."""

import numpy as np
from jaxtyping import Int64, UInt8


def draw_subset(
    labels: UInt8[np.ndarray, "sample class"], *, fraction: float, seed: int
) -> Int64[np.ndarray, " chosen"]:
    """Positions of a share of the samples, ascending; at least one sample.

    Classes are served from the rarest to the most frequent: of the samples not yet drawn that have
    the class, so many are drawn at random as it still lacks of its share, which is at least one
    sample. Places that are left go to samples drawn at random from the rest.
    """
    count = max(1, round(fraction * len(labels)))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    shuffled = labels[order].astype(bool)
    drawn = np.zeros(len(labels), dtype=bool)
    frequencies = shuffled.sum(axis=0)
    for column in np.argsort(frequencies, kind="stable"):
        share = max(1, round(fraction * int(frequencies[column])))
        lacking = share - int(shuffled[drawn, column].sum())
        candidates = np.flatnonzero(shuffled[:, column] & ~drawn)
        drawn[candidates[: max(0, min(lacking, count - int(drawn.sum())))]] = True
    rest = np.flatnonzero(~drawn)
    drawn[rest[: count - int(drawn.sum())]] = True
    return np.sort(order[drawn])

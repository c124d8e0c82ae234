"""Pictures of patches in a report: what the evaluated network looks at, and what it finds alike."""

from itertools import product

import numpy as np
from matplotlib.figure import Figure

from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.jobs import pairs_of
from dinomm_train.evaluation.pictures.attention import draw_attention, look_at_patch
from dinomm_train.evaluation.pictures.neighbours import Search, draw_neighbours
from dinomm_train.evaluation.workbench import Workbench

Gallery = dict[str, tuple[str, Figure]]
"""File names and figures by title."""


def draw_gallery(bench: Workbench) -> Gallery:
    """Attention, token colours and neighbours of a test patch that holds many classes."""
    subject, test = bench.subject, bench.splits["test"]
    assert subject.frozen is not None
    position = choose_patch(test)
    gallery: Gallery = {}
    if subject.encoder is not None:
        look = look_at_patch(
            subject.frozen, bench.dataset, test.key(position), bench.config.extraction
        )
        gallery["What the network looks at"] = ("attention.png", draw_attention(look))
    searches = _searches(bench)
    if searches:
        figure = draw_neighbours(bench.dataset, test, searches, position)
        gallery["What the network finds alike"] = ("neighbours.png", figure)
    return gallery


def choose_patch(split: StoredSplit) -> int:
    """The position of the first of those patches that hold the most classes."""
    return int(np.argmax(split.labels.sum(axis=1)))


def _searches(bench: Workbench) -> list[Search]:
    """From each single sensor to each, where features of both are at hand."""
    encoder, store = bench.subject.encoder, bench.stores.get(bench.subject_name)
    if encoder is None or store is None:
        return []
    seen = dict.fromkeys(
        sensors for pair in pairs_of(bench.config) for sensors in (pair.train, pair.test)
    )
    singles: list[SensorSet] = [one for one in seen if "+" not in one] or list(seen)
    features = {
        one: store.read(bench.splits["test"], one)[:, encoder.plain.slice] for one in singles
    }
    return [
        Search(
            query=query,
            gallery=gallery,
            query_features=features[query],
            gallery_features=features[gallery],
        )
        for query, gallery in product(singles, repeat=2)
    ]

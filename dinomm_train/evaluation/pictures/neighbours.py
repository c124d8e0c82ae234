"""Patches that a network finds alike: a query seen by one sensor, its neighbours by another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.images import read_images
from dinomm_train.evaluation.pictures.patch_views import caption_of, radar_colour, true_colour

SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What is looked for, and among what, as seen by a network."""

    query: SensorSet
    gallery: SensorSet
    query_features: Float32[np.ndarray, "sample feature"]
    """Of the split's patches as the query's sensors see them."""
    gallery_features: Float32[np.ndarray, "sample feature"]
    """The same patches in the same order, as the gallery's sensors see them."""


def nearest_patches(search: Search, position: int) -> list[tuple[int, float]]:
    """Positions and cosines of the patches nearest to the one at this position, nearest first."""
    query = search.query_features[position]
    cosine = search.gallery_features @ query
    cosine /= np.linalg.norm(search.gallery_features, axis=1) * np.linalg.norm(query)
    order = np.argsort(-cosine, kind="stable")[:SHOWN]
    return [(int(one), float(cosine[one])) for one in order]


def draw_neighbours(
    dataset: StoredDataset, split: StoredSplit, searches: Sequence[Search], position: int
) -> Figure:
    """A row per search: the query as its sensors see it, then its nearest patches with cosines.

    A green title shares a label with the query, a red one does not.
    """
    figure = Figure(figsize=(1.9 * (SHOWN + 1), 2.35 * len(searches)), layout="constrained")
    grid = figure.subplots(len(searches), SHOWN + 1, squeeze=False)
    for line, search in zip(grid, searches, strict=True):
        _draw_patch(line[0], dataset, split, position, search.query)
        line[0].set_title(f"query, {search.query}", fontsize="small", weight="bold")
        for panel, (found, cosine) in zip(
            line[1:], nearest_patches(search, position), strict=False
        ):
            _draw_patch(panel, dataset, split, found, search.gallery)
            alike = bool((split.labels[found] & split.labels[position]).any())
            own = " (itself)" if found == position else ""
            colour = "#2d7d46" if alike else "#a33b3b"
            panel.set_title(f"{search.gallery}  {cosine:.2f}{own}", fontsize="small", color=colour)
    caption = caption_of(split, position)
    figure.suptitle(f"{split.key(position)}\n{caption}", fontsize="small")
    return figure


def _draw_patch(
    panel: Axes, dataset: StoredDataset, split: StoredSplit, position: int, sensors: SensorSet
) -> None:
    (image,) = read_images(dataset, split, [np.array([position])], torch.device("cpu"))
    colours = radar_colour if sensors == "s1" else true_colour
    picture = colours(image[0].numpy(), dataset.card)
    panel.set_axis_off()
    if picture is not None:
        panel.imshow(picture)

"""A contact sheet of a dataset: what a person would look at before training on it."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from matplotlib.figure import Figure

from bigearth_prep.card import DatasetCard, SensorCard, read_card
from bigearth_prep.dataset import SplitSamples, open_dataset
from bigearth_prep.whole_file import whole_file

_DARKEST_PERCENT, _BRIGHTEST_PERCENT = 2.0, 98.0
_TRUE_COLOUR = ("B04", "B03", "B02")
_FALSE_COLOUR = ("B08", "B04", "B03")
_RADAR = ("VV", "VH")
_LABEL_WIDTH = 34
"""Letters of a label before it breaks."""

Rgb = Float32[np.ndarray, "height width 3"]


def write_contact_sheet(dataset: Path, out: Path, *, patches: int = 12) -> None:
    """Write the contact sheet as a PNG.

    Raises:
        PrepError: a shard cannot be read.
    """
    figure = draw_contact_sheet(dataset, patches=patches)
    with whole_file(out) as partial:
        figure.savefig(partial, format="png", dpi=110)


def draw_contact_sheet(dataset: Path, *, patches: int) -> Figure:
    """The same patches in true colour, false colour and radar, and their labels.

    Patches are spread evenly over the largest split. Values are undone to physical ones by the
    card, and all stretched alike, from the 2nd percentile of all pixels to the median patch's
    98th: bright and dark patches stay comparable, and clouds in some do not darken the others.

    Raises:
        PrepError: a shard cannot be read.
    """
    samples = _largest_split(dataset)
    count = min(patches, len(samples))
    chosen = [samples[len(samples) * number // count] for number in range(count)]
    views = views_of(samples.card).items()
    columns = {title: _compose(samples.card, chosen, bands) for title, bands in views}
    labels = [_labels_of(samples.card, item) for item in chosen]
    return _draw(columns, [item["key"] for item in chosen], labels)


def _largest_split(dataset: Path) -> SplitSamples:
    splits = read_card(dataset).splits
    return open_dataset(dataset, max(splits, key=lambda name: splits[name].samples))


def views_of(card: DatasetCard) -> dict[str, tuple[str, ...]]:
    """The pictures that the dataset's bands allow, as the bands of each by its title.

    A sensor with bands of other names is shown by its first three, or its first in grey.
    """
    wanted = {
        "true colour (B04, B03, B02)": _TRUE_COLOUR,
        "near infrared (B08, B04, B03)": _FALSE_COLOUR,
        "radar (VV, VH, VV - VH)": _RADAR,
    }
    views = {title: bands for title, bands in wanted.items() if set(bands) <= set(card.channels)}
    shown = {band for bands in views.values() for band in bands}
    for sensor, layout in card.sensors.items():
        if shown.isdisjoint(layout.bands):
            bands = layout.bands[:3] if len(layout.bands) >= 3 else layout.bands[:1]
            views[f"{sensor} ({', '.join(bands)})"] = bands
    return views


def _compose(card: DatasetCard, items: list[dict[str, Any]], bands: tuple[str, ...]) -> list[Rgb]:
    """One RGB picture per item, all stretched alike."""
    stacks = []
    for item in items:
        planes = [_physical(card, item, band) for band in bands]
        if bands == _RADAR:
            planes.append(planes[0] - planes[1])
        if len(planes) == 1:
            planes *= 3
        stacks.append(np.stack(planes, axis=-1))
    lower = np.percentile(np.stack(stacks), _DARKEST_PERCENT, axis=(0, 1, 2))
    brightest = [np.percentile(one, _BRIGHTEST_PERCENT, axis=(0, 1)) for one in stacks]
    upper = np.median(brightest, axis=0)
    span = np.maximum(upper - lower, 1e-6)
    return [np.clip((stack - lower) / span, 0, 1).astype(np.float32) for stack in stacks]


def _physical(
    card: DatasetCard, item: dict[str, Any], band: str
) -> Shaped[np.ndarray, "height width"]:
    sensor = next(name for name, layout in card.sensors.items() if band in layout.bands)
    layout: SensorCard = card.sensors[sensor]
    index = layout.bands.index(band)
    stored = item[sensor][index].astype(np.float64)
    return np.asarray(stored * layout.scale[index] + layout.offset[index])


def _labels_of(card: DatasetCard, item: dict[str, Any]) -> list[str]:
    return [card.labels.classes[index] for index in np.flatnonzero(item["labels"])]


def _draw(columns: dict[str, list[Rgb]], keys: list[str], labels: list[list[str]]) -> Figure:
    count, width = len(keys), len(columns) + 1
    figure = Figure(figsize=(2.6 * width, 2.35 * count), layout="constrained")
    axes = figure.subplots(count, width, squeeze=False)
    for row in range(count):
        for column, (title, pictures) in enumerate(columns.items()):
            axis = axes[row, column]
            axis.imshow(pictures[row], interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, fontsize=9)
        text = axes[row, width - 1]
        text.set_axis_off()
        text.text(0, 1, keys[row], va="top", fontsize=6.5, transform=text.transAxes)
        names = "\n".join(_listed(name) for name in labels[row])
        text.text(0, 0.92, names, va="top", fontsize=8.5, transform=text.transAxes)
    return figure


def _listed(name: str) -> str:
    return textwrap.fill(
        name, _LABEL_WIDTH, initial_indent="\N{BULLET} ", subsequent_indent="   ", max_lines=3
    )

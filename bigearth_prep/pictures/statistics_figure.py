"""A picture of per-band statistics: how each band's values spread, beside the other bands."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bigearth_prep.bands import DECIBEL, REFLECTANCE
from bigearth_prep.pictures.page_figures import SPLIT_COLOURS
from bigearth_prep.statistics import BandStatistics, BandTables
from bigearth_prep.whole_file import whole_file

_LABELS = {
    REFLECTANCE: "reflectance x 10\N{SUPERSCRIPT FOUR}",
    DECIBEL: "backscatter in dB",
}
_BOX = {"whislo": "1", "q1": "25", "med": "50", "q3": "75", "whishi": "99"}


def write_statistics_figure(
    splits: BandTables, units: Mapping[str, Sequence[str]], out: Path
) -> None:
    """Write a PNG of boxes (quartiles), whiskers (1st and 99th percentile) and means per band.

    Args:
        splits: By split, then by band name, with percentiles.
        units: The bands to draw, by their unit: a panel for each.
        out: The file.
    """
    widths = [len(own) + 1 for own in units.values()]
    figure = Figure(figsize=(1.5 + 0.75 * sum(widths), 4.5), layout="constrained")
    axes = figure.subplots(1, len(units), squeeze=False, width_ratios=widths)[0]
    for axis, (unit, own) in zip(axes, units.items(), strict=True):
        _draw_boxes(axis, own, splits)
        axis.set_ylabel(_LABELS.get(unit, unit))
    axes[0].legend(loc="upper left", frameon=False, fontsize=8)
    with whole_file(out) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _draw_boxes(axis: Axes, names: Sequence[str], splits: BandTables) -> None:
    width = 0.8 / len(splits)
    for number, (split, bands) in enumerate(splits.items()):
        shift = (number - (len(splits) - 1) / 2) * width
        colour = SPLIT_COLOURS[split]
        axis.bxp(
            [_box_of(bands[name]) for name in names],
            positions=[place + shift for place in range(len(names))],
            widths=0.8 * width,
            patch_artist=True,
            showfliers=False,
            showmeans=True,
            boxprops={"facecolor": colour, "alpha": 0.5, "lw": 0.6},
            medianprops={"color": colour},
            meanprops={"marker": "d", "ms": 3, "mfc": "black", "mec": "black"},
            label=f"{split}: quartiles, 1 to 99 %, mean",
        )
    axis.set_xticks(range(len(names)), names)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e5e5", lw=0.6)
    axis.set_axisbelow(True)


def _box_of(band: BandStatistics) -> dict[str, float]:
    assert band.percentiles is not None
    return {name: band.percentiles[share] for name, share in _BOX.items()} | {"mean": band.mean}

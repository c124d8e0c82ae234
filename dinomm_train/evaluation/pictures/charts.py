"""Charts of scores: bars with intervals, curves over labels, bars by class and by group."""

import textwrap
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinomm_train.evaluation.config import CHECKPOINT, FLOORS, SUPERVISED
from dinomm_train.evaluation.evaluation import Evaluation
from dinomm_train.evaluation.matrix import MatrixRow

_COLOURS = {
    "random": "#c9ced6",
    "statistics": "#a3abb8",
    "rcf": "#7c8797",
    CHECKPOINT: "#1f6f9f",
    SUPERVISED: "#d98324",
}
_MORE_COLOURS = ("#5aa469", "#8e6bbf", "#c2557a", "#3aa6a0", "#b3872e")

_MARKERS = "os^Dv"

_NAME_WIDTH = 42
"""Letters of a class name before it breaks."""

_CLASSES_BESIDE = 3
"""Networks that the chart of classes shows, at most: more bars are too thin to read."""


def colour_of(network: str, networks: Sequence[str]) -> str:
    """The colour of a network in every chart of an evaluation."""
    others = [name for name in networks if name not in _COLOURS]
    if network in _COLOURS:
        return _COLOURS[network]
    return _MORE_COLOURS[others.index(network) % len(_MORE_COLOURS)]


def draw_scores(evaluation: Evaluation) -> Figure:
    """Micro mAP with intervals, all labels or the most there are: a panel per protocol."""
    most = max(row.key.fraction for row in evaluation.rows)
    rows = [row for row in evaluation.rows if row.key.fraction == most]
    protocols = list(dict.fromkeys(row.key.protocol for row in rows))
    pairs = len(dict.fromkeys(str(row.key.sensors) for row in rows))
    networks = list(evaluation.setup.networks)
    width = 1.2 + len(protocols) * max(2.6, pairs * (0.5 + 0.26 * len(networks)))
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    for panel, protocol in zip(panels, protocols, strict=True):
        of_protocol = [row for row in rows if row.key.protocol == protocol]
        _draw_bars(panel, of_protocol, networks)
        panel.axhline(
            100 * evaluation.setup.positive_share, color="black", ls=":", lw=1, label="guessing"
        )
        panel.set_title(protocol)
    panels[0].set_ylabel("micro mAP on the test split, %")
    _shared_legend(figure, list(panels))
    return figure


def draw_label_curves(evaluation: Evaluation) -> Figure:
    """Micro mAP against the share of labels: a row of panels per protocol, one per sensor pair."""
    rows = evaluation.rows
    protocols = list(dict.fromkeys(row.key.protocol for row in rows))
    pairs = list(dict.fromkeys(str(row.key.sensors) for row in rows))
    networks = list(evaluation.setup.networks)
    size = (1.0 + 2.8 * len(pairs), 0.9 + 2.5 * len(protocols))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(protocols), len(pairs), sharex=True, sharey=True, squeeze=False)
    for line, protocol in zip(panels, protocols, strict=True):
        for panel, pair in zip(line, pairs, strict=True):
            shown = [
                row for row in rows if (row.key.protocol, str(row.key.sensors)) == (protocol, pair)
            ]
            _draw_curves(panel, shown, networks)
            panel.set_title(f"{protocol}, {pair}", fontsize="medium")
        line[0].set_ylabel("micro mAP, %")
    for panel in panels[-1]:
        panel.set_xlabel("labels used, %")
    _shared_legend(figure, list(panels.flat))
    return figure


def draw_classes(evaluation: Evaluation) -> Figure:
    """Average precision of every class, frequent ones on top, under the last sensor set."""
    rows = _rows_to_look_at(evaluation)
    order = sorted(
        (one for one in range(len(rows[0].classes)) if rows[0].classes[one].positives),
        key=lambda one: rows[0].classes[one].positives,
    )
    figure = Figure(figsize=(8.4, 1.4 + 0.36 * len(order)), layout="constrained")
    panel = figure.subplots()
    height = 0.8 / len(rows)
    for number, row in enumerate(rows):
        shift = ((len(rows) - 1) / 2 - number) * height
        places = [place + shift for place in range(len(order))]
        lengths = [100 * (row.classes[one].ap or 0.0) for one in order]
        colour = colour_of(row.key.network, list(evaluation.setup.networks))
        panel.barh(places, lengths, height, color=colour, label=row.key.network)
    classes = [rows[0].classes[one] for one in order]
    names = [f"{textwrap.fill(one.name, _NAME_WIDTH)} ({one.positives:,})" for one in classes]
    panel.set_yticks(range(len(order)), names, fontsize="small")
    panel.set_ylim(-0.6, len(order) - 0.4)
    panel.set_xlim(0, 100)
    panel.set_xlabel("average precision, %")
    panel.set_title(
        f"{rows[0].key.sensors}, {rows[0].key.protocol}; in brackets: test samples with the class",
        fontsize="medium",
    )
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_groups(evaluation: Evaluation) -> Figure:
    """Micro mAP by kind of test sample, of the checkpoint under each sensor set."""
    rows = _checkpoint_rows(evaluation)
    kinds = list(dict.fromkeys(one.kind for one in rows[0].groups))
    counts = [sum(one.kind == kind for one in rows[0].groups) for kind in kinds]
    figure = Figure(figsize=(2.0 + 0.55 * sum(counts), 3.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False, width_ratios=counts)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        _draw_kind(panel, kind, rows)
    panels[0].set_ylabel(f"micro mAP, %\n{rows[0].key.network}, {rows[0].key.protocol}")
    _shared_legend(figure, list(panels))
    return figure


def _draw_kind(panel: Axes, kind: str, rows: Sequence[MatrixRow]) -> None:
    groups = [one for one in rows[0].groups if one.kind == kind]
    for number, row in enumerate(rows):
        shift = (number - (len(rows) - 1) / 2) * 0.2
        panel.plot(
            [place + shift for place in range(len(groups))],
            [100 * one.micro_ap for one in row.groups if one.kind == kind],
            _MARKERS[number % len(_MARKERS)],
            label=str(row.key.sensors),
            color=f"C{number}",
        )
    names = [f"{one.name} ({one.samples:,})" for one in groups]
    panel.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize="small")
    panel.set_xlim(-0.6, len(names) - 0.4)
    panel.set_title(kind, fontsize="medium")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.3)


def _draw_bars(panel: Axes, rows: Sequence[MatrixRow], networks: Sequence[str]) -> None:
    shown = [name for name in networks if any(row.key.network == name for row in rows)]
    pairs = list(dict.fromkeys(str(row.key.sensors) for row in rows))
    width = 0.84 / len(shown)
    for number, network in enumerate(shown):
        for row in rows:
            if row.key.network != network:
                continue
            score = row.scores["micro_ap"]
            place = pairs.index(str(row.key.sensors)) + (number - (len(shown) - 1) / 2) * width
            height = 100 * score.mean
            error = [[max(0.0, height - 100 * score.low)], [max(0.0, 100 * score.high - height)]]
            panel.bar(
                place, height, width * 0.94, color=colour_of(network, networks), label=network
            )
            panel.errorbar(place, height, error, color="#333333", lw=1, capsize=2, ls="none")
            top = 100 * score.high + 1
            panel.text(place, top, f"{height:.0f}", ha="center", fontsize="x-small")
    panel.set_xticks(range(len(pairs)), pairs)
    panel.set_ylim(0, 105)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_curves(panel: Axes, rows: Sequence[MatrixRow], networks: Sequence[str]) -> None:
    for number, network in enumerate(networks):
        own = sorted(
            (row for row in rows if row.key.network == network), key=lambda row: row.key.fraction
        )
        if not own:
            continue
        shares = [100 * row.key.fraction for row in own]
        scores = [row.scores["micro_ap"] for row in own]
        colour = colour_of(network, networks)
        means = [100 * one.mean for one in scores]
        marker = _MARKERS[number % len(_MARKERS)]
        panel.plot(shares, means, f"{marker}-", ms=5, color=colour, label=network)
        low, high = (
            [100 * value for value in bounds]
            for bounds in zip(*((one.low, one.high) for one in scores), strict=True)
        )
        panel.fill_between(shares, low, high, color=colour, alpha=0.18, lw=0)
    panel.set_xscale("log")
    ticks = sorted({100 * row.key.fraction for row in rows})
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _rows_to_look_at(evaluation: Evaluation) -> list[MatrixRow]:
    """One protocol's rows under the last sensor set with the most labels: checkpoint and others."""
    last = _checkpoint_rows(evaluation)[-1].key
    rows = [
        row
        for row in evaluation.rows
        if (row.key.sensors, row.key.fraction, row.key.protocol)
        == (last.sensors, last.fraction, last.protocol)
    ]
    rows.sort(key=lambda row: row.key.network in FLOORS and row.key.network != "random")
    return sorted(
        rows[:_CLASSES_BESIDE], key=lambda row: row.key.network not in ("random", *FLOORS)
    )


def _checkpoint_rows(evaluation: Evaluation) -> list[MatrixRow]:
    """The checkpoint's rows, or the last network's: one protocol, most labels, same sensors."""
    rows = [row for row in evaluation.rows if row.key.sensors.train == row.key.sensors.test]
    networks = [row.key.network for row in rows]
    network = CHECKPOINT if CHECKPOINT in networks else networks[-1]
    own = [row for row in rows if row.key.network == network]
    most = max(row.key.fraction for row in own)
    protocols = [row.key.protocol for row in own]
    protocol = "linear" if "linear" in protocols else protocols[-1]
    return [row for row in own if (row.key.fraction, row.key.protocol) == (most, protocol)]


def _shared_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    named: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    columns = min(6, len(named))
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)

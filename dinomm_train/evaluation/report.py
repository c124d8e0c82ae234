"""The matrix of scores as JSON, CSV, Markdown, and one chart."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bigearth_prep.whole_file import whole_file, write_text
from dinomm_train.evaluation.scores import CONVENTION
from dinomm_train.evaluation.sensor_matrix import MatrixRow

_SUMMARY = {
    "micro_ap": "micro mAP",
    "macro_ap": "macro mAP",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
}
"""Score by field, as tables head it."""

_COLOURS = ("#b8bcc4", "#2a6f97")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSetup:
    """Everything that a reader needs to repeat or compare the scores."""

    networks: dict[str, str]
    """Where the weights of each network come from, by its name in the table."""

    architecture: dict[str, object]
    """The configuration's `model` section, the same for all networks."""

    dataset: str
    dataset_checksum: str
    samples: dict[str, int]
    """By split; train is learnt from, validation chooses L2, test is scored."""

    positive_share: float
    """Of the test split's sample-class pairs: the micro mAP of guessing."""

    crop_px: int
    """Side of the centre crop taken of each patch, in pixels of 10 m."""

    input_px: int
    """Side that it was resized to for the network."""

    fill: float
    """Network input in place of a missing sensor."""

    seed: int
    protocols: dict[str, str]
    """What each protocol does, in words."""

    created_by: str
    convention: str = CONVENTION


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores and how they came about."""

    setup: EvaluationSetup
    rows: tuple[MatrixRow, ...]


def write_report(evaluation: Evaluation, folder: Path) -> tuple[Path, ...]:
    """The paths written: scores.json, scores.csv, scores.md and scores.png."""
    texts = {
        "scores.json": json.dumps(to_plain(evaluation), indent=2, ensure_ascii=False) + "\n",
        "scores.csv": to_csv(evaluation.rows),
        "scores.md": to_markdown(evaluation),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    chart = folder / "scores.png"
    with whole_file(chart) as partial:
        draw_chart(evaluation).savefig(partial, format="png", dpi=150)
    return (*(folder / name for name in texts), chart)


def to_plain(evaluation: Evaluation) -> dict[str, object]:
    """The evaluation as dictionaries, lists and plain values, for JSON."""
    return {
        "setup": asdict(evaluation.setup),
        "rows": [_plain_row(row) for row in evaluation.rows],
    }


def _plain_row(row: MatrixRow) -> dict[str, object]:
    cell = {"network": row.network, "sensors": row.sensors, "protocol": row.protocol, "l2": row.l2}
    left_out = {"classes_without_positives": list(row.scores.classes_without_positives)}
    return cell | asdict(row.scores) | left_out


def to_csv(rows: Sequence[MatrixRow]) -> str:
    """One line per network, sensor set, protocol and class; `micro` and `macro` are classes too."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("network", "sensors", "protocol", "class", "positives", "ap", "f1"))
    for row in rows:
        scores = row.scores
        cell = (row.network, row.sensors, row.protocol)
        writer.writerow((*cell, "micro", "", scores.micro_ap, scores.micro_f1))
        writer.writerow((*cell, "macro", "", scores.macro_ap, scores.macro_f1))
        writer.writerows((*cell, one.name, one.positives, one.ap, one.f1) for one in scores.classes)
    return text.getvalue()


def to_markdown(evaluation: Evaluation) -> str:
    """The summary, the average precision of every class, and how both were made."""
    setup = evaluation.setup
    counts = ", ".join(f"{count:,} {name}" for name, count in setup.samples.items())
    networks = [f"- `{name}`: {origin}" for name, origin in setup.networks.items()]
    protocols = [f"- `{name}`: {words}" for name, words in setup.protocols.items()]
    parts = [
        "# Scores",
        to_summary(evaluation.rows),
        "## Average precision by class, in %",
        _class_table(evaluation.rows),
        "## How",
        "\n".join(networks + protocols),
        f"- Dataset `{setup.dataset}` (card {setup.dataset_checksum}): {counts}.\n"
        f"- Each patch's centre {setup.crop_px} px, given to the network at {setup.input_px} px; a "
        f"missing sensor is {setup.fill:g}. Seed {setup.seed}.\n"
        f"- {setup.convention} Guessing has a micro mAP of {100 * setup.positive_share:.1f} %.\n"
        f"- Made by {setup.created_by}.",
    ]
    return "\n\n".join(parts) + "\n"


def to_summary(rows: Sequence[MatrixRow]) -> str:
    """The whole-split scores as a Markdown table, in percent."""
    heads = ["sensors", "protocol", "network", *(f"{name} %" for name in _SUMMARY.values())]
    return _markdown_table(
        heads,
        [
            [
                row.sensors,
                row.protocol,
                row.network,
                *(_percent(getattr(row.scores, field)) for field in _SUMMARY),
            ]
            for row in rows
        ],
        text_columns=3,
    )


def _class_table(rows: Sequence[MatrixRow]) -> str:
    heads = [f"{row.sensors} {row.protocol} {row.network}" for row in rows]
    body = [
        [one.name, f"{one.positives:,}", *(_percent(row.scores.classes[index].ap) for row in rows)]
        for index, one in enumerate(rows[0].scores.classes)
    ]
    return _markdown_table(["class", "positives", *heads], body, text_columns=1)


def _percent(share: float | None) -> str:
    return "no positives" if share is None else f"{100 * share:.1f}"


def _markdown_table(
    heads: Sequence[str], body: Sequence[Sequence[str]], *, text_columns: int
) -> str:
    """The table with its first columns left-aligned and the numbers after them right-aligned."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    rule = ["-" * width for width in widths[:text_columns]]
    rule += ["-" * (width - 1) + ":" for width in widths[text_columns:]]
    lines = []
    for line in (heads, rule, *body):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        cells[text_columns:] = [cell.rstrip().rjust(len(cell)) for cell in cells[text_columns:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_chart(evaluation: Evaluation) -> Figure:
    """Bars of micro mAP: a panel per protocol, a group per sensor set, a bar per network."""
    protocols = list(dict.fromkeys(row.protocol for row in evaluation.rows))
    figure = Figure(figsize=(1.4 + 4.2 * len(protocols), 4.0), layout="constrained")
    panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    for panel, protocol in zip(panels, protocols, strict=True):
        rows = [row for row in evaluation.rows if row.protocol == protocol]
        _draw_panel(panel, rows, guessing=100 * evaluation.setup.positive_share)
        panel.set_title(protocol)
    panels[0].set_ylabel("micro mAP on the test split, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_panel(panel: Axes, rows: Sequence[MatrixRow], *, guessing: float) -> None:
    networks = list(dict.fromkeys(row.network for row in rows))
    sensor_sets = list(dict.fromkeys(row.sensors for row in rows))
    width = 0.8 / len(networks)
    for number, (network, colour) in enumerate(zip(networks, cycle(_COLOURS), strict=False)):
        heights = [100 * row.scores.micro_ap for row in rows if row.network == network]
        shift = (number - (len(networks) - 1) / 2) * width
        places = [place + shift for place in range(len(heights))]
        bars = panel.bar(places, heights, width, label=network, color=colour)
        panel.bar_label(bars, fmt="%.1f", fontsize="small", padding=1)
    panel.axhline(guessing, color="black", linestyle=":", linewidth=1, label="guessing")
    panel.set_xticks(range(len(sensor_sets)), sensor_sets)
    panel.set_ylim(0, 105)
    panel.spines[["top", "right"]].set_visible(False)

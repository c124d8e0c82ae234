"""An evaluation as Markdown: the tables a paper prints, and how they were made."""

from collections.abc import Sequence

from dinomm_train.evaluation.bootstrap import INTERVAL_PERCENT
from dinomm_train.evaluation.evaluation import Evaluation, EvaluationSetup
from dinomm_train.evaluation.matrix import Estimate, MatrixRow
from dinomm_train.evaluation.report.tables import legacy_cells, percent_of_labels

_SUMMARY = {
    "micro_ap": "micro mAP %",
    "macro_ap": "macro mAP %",
    "micro_f1": "micro F1 %",
    "macro_f1": "macro F1 %",
}
"""Score by field, as tables head it."""

LEGACY_NOTE = (
    "Made as DINO-MM's code makes its figure, only to stand beside that figure (87.1 on "
    "BigEarthNet v1 with all labels): best epoch on the validation list, mean of micro-APs of "
    "batches of 64. `micro mAP` and `macro mAP` are over the whole list, of the same predictions."
)


def to_markdown(evaluation: Evaluation) -> str:
    """The summary, gains, legacy figures, classes, groups, and how all of it was made."""
    rows = evaluation.rows
    parts = ["# Scores", to_brief(evaluation)]
    if any(row.gains for row in rows):
        parts += ["## Gains, in points of mAP", _gain_table(rows)]
    if rows:
        parts += ["## Average precision by class, in %", _class_table(rows)]
        parts += _group_tables(rows)
    parts += ["## How", how(evaluation.setup)]
    return "\n\n".join(parts) + "\n"


def to_brief(evaluation: Evaluation) -> str:
    """The summary and the legacy figures, whichever there are."""
    parts = []
    if evaluation.rows:
        parts += [to_summary(evaluation.rows), interval_note(evaluation.setup)]
    if evaluation.legacy:
        heads, body = legacy_cells(evaluation.legacy)
        parts += [
            "## Legacy: for comparison with published figures only",
            markdown_table(heads, body, text_columns=3),
            LEGACY_NOTE,
        ]
    return "\n\n".join(parts)


def to_summary(rows: Sequence[MatrixRow]) -> str:
    """The whole-split scores as a Markdown table, in percent."""
    heads = ["sensors", "labels", "protocol", "network", *_SUMMARY.values()]
    body = [
        [
            str(row.key.sensors),
            percent_of_labels(row.key.fraction),
            row.key.protocol,
            row.key.network,
            *(in_percent(row.scores[field]) for field in _SUMMARY),
        ]
        for row in rows
    ]
    return markdown_table(heads, body, text_columns=4)


def interval_note(setup: EvaluationSetup) -> str:
    """How to read a cell."""
    spread = " ± their standard deviation over seeds" if setup.seeds > 1 else ""
    return (
        f"Cells: mean{spread} and, in brackets, the {INTERVAL_PERCENT:g} % bootstrap interval over "
        f"test samples ({setup.resamples} resamples)."
    )


def how(setup: EvaluationSetup) -> str:
    """Where networks come from, what protocols do, on what."""
    counts = ", ".join(f"{count:,} {name}" for name, count in setup.samples.items())
    labelled = ", ".join(
        f"{percent_of_labels(float(share))}: {count:,}" for share, count in setup.labelled.items()
    )
    lines = [f"- `{name}`: {origin}" for name, origin in setup.networks.items()]
    lines += [f"- `{name}`: {words}." for name, words in setup.protocols.items()]
    lines += [
        f"- Dataset `{setup.dataset}` (card {setup.dataset_checksum}): {counts}. Labelled samples "
        f"by share: {labelled}; those of a share below all are listed in `labels/`.",
        f"- Each patch's centre {setup.crop_px} px, given to the evaluated network at "
        f"{setup.input_px} px; a missing sensor is {setup.fill:g}.",
        "- `a → b`: learnt and chosen on patches seen by a, scored on patches seen by b.",
        f"- {setup.convention} Guessing has a micro mAP of {100 * setup.positive_share:.1f} %.",
        f"- Made by {setup.created_by}.",
    ]
    return "\n".join(lines)


def in_percent(estimate: Estimate, *, signed: bool = False) -> str:
    """A cell: mean, spread where there are seeds, and interval."""
    sign = "+" if signed else ""
    spread = "" if estimate.spread is None else f" ± {100 * estimate.spread:.1f}"
    low, high = (f"{100 * one:{sign}.1f}" for one in (estimate.low, estimate.high))
    return f"{100 * estimate.mean:{sign}.1f}{spread} [{low}, {high}]"


def markdown_table(
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


def _gain_table(rows: Sequence[MatrixRow]) -> str:
    heads = ["sensors", "labels", "protocol", "network", "over", "micro mAP", "macro mAP"]
    body = [
        [
            str(row.key.sensors),
            percent_of_labels(row.key.fraction),
            row.key.protocol,
            row.key.network,
            "supervised" if row.key.protocol == "finetune" else "random",
            *(in_percent(row.gains[field], signed=True) for field in ("micro_ap", "macro_ap")),
        ]
        for row in rows
        if row.gains
    ]
    return markdown_table(heads, body, text_columns=5)


def _class_table(rows: Sequence[MatrixRow]) -> str:
    heads = [row_name(row) for row in rows]
    body = [
        [one.name, f"{one.positives:,}", *(_percent(row.classes[index].ap) for row in rows)]
        for index, one in enumerate(rows[0].classes)
    ]
    return markdown_table(["class", "positives", *heads], body, text_columns=1)


def _group_tables(rows: Sequence[MatrixRow]) -> list[str]:
    parts = []
    kinds = dict.fromkeys(one.kind for one in rows[0].groups)
    for kind in kinds:
        body = [
            [
                one.name,
                f"{one.samples:,}",
                *(_percent(row.groups[index].micro_ap) for row in rows),
            ]
            for index, one in enumerate(rows[0].groups)
            if one.kind == kind
        ]
        heads = [kind, "samples", *(row_name(row) for row in rows)]
        parts += [f"## Micro mAP by {kind}, in %", markdown_table(heads, body, text_columns=1)]
    return parts


def row_name(row: MatrixRow) -> str:
    """The row in few words."""
    key = row.key
    labels = "" if key.fraction == 1 else f" {percent_of_labels(key.fraction)}"
    return f"{key.sensors} {key.protocol} {key.network}{labels}"


def _percent(share: float | None) -> str:
    return "no positives" if share is None else f"{100 * share:.1f}"

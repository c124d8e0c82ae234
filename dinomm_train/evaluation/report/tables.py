"""An evaluation as JSON and CSV: every number, for scripts."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dinomm_train.evaluation.bootstrap import MEASURES
from dinomm_train.evaluation.evaluation import Evaluation, LegacyRow
from dinomm_train.evaluation.matrix import MatrixRow

_COLUMNS = (
    "network",
    "protocol",
    "train_sensors",
    "test_sensors",
    "label_fraction",
    "seeds",
    "measure",
    "mean",
    "spread",
    "low",
    "high",
)


def to_plain(evaluation: Evaluation) -> dict[str, Any]:
    """All there is, as plain values."""
    return {
        "setup": asdict(evaluation.setup),
        "rows": [_plain_row(row) for row in evaluation.rows],
        "legacy": [asdict(row) for row in evaluation.legacy],
    }


def _plain_row(row: MatrixRow) -> dict[str, Any]:
    key = row.key
    about: dict[str, Any] = {
        "network": key.network,
        "protocol": key.protocol,
        "sensors": str(key.sensors),
        "train_sensors": key.sensors.train,
        "test_sensors": key.sensors.test,
        "label_fraction": key.fraction,
        "seeds": row.seeds,
    }
    about |= {name: one.mean for name, one in row.scores.items()}
    return about | {
        "estimates": {name: asdict(one) for name, one in row.scores.items()},
        "gains": {name: asdict(one) for name, one in row.gains.items()},
        "classes": [asdict(one) for one in row.classes],
        "groups": [asdict(one) for one in row.groups],
        "chosen": list(row.details),
    }


def to_csv(rows: Sequence[MatrixRow]) -> str:
    """One line per row and measure; a class's average precision is the measure `ap: CLASS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        key = row.key
        cell = (
            key.network,
            key.protocol,
            key.sensors.train,
            key.sensors.test,
            key.fraction,
            row.seeds,
        )
        for name in MEASURES:
            one = row.scores[name]
            writer.writerow((*cell, name, one.mean, one.spread, one.low, one.high))
        writer.writerows((*cell, f"ap: {one.name}", one.ap, "", "", "") for one in row.classes)
    return text.getvalue()


def to_group_csv(rows: Sequence[MatrixRow]) -> str:
    """One line per row and group of test samples."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ("kind", "group", "samples", "micro_ap", "macro_ap")
    writer.writerow((*_COLUMNS[:5], *heads))
    for row in rows:
        key = row.key
        cell = (key.network, key.protocol, key.sensors.train, key.sensors.test, key.fraction)
        writer.writerows(
            (*cell, one.kind, one.name, one.samples, one.micro_ap, one.macro_ap)
            for one in row.groups
        )
    return text.getvalue()


def legacy_cells(rows: Sequence[LegacyRow]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the published figure's table, in percent."""
    heads = ["sensors", "labels", "network", "published mAP %", "micro mAP %", "macro mAP %"]
    body = [
        [
            row.sensors,
            percent_of_labels(row.fraction),
            row.network,
            *(f"{100 * one:.1f}" for one in (row.batch_micro_ap, row.micro_ap, row.macro_ap)),
        ]
        for row in rows
    ]
    return heads, body


def percent_of_labels(fraction: float) -> str:
    """A share of labels as people say it."""
    return f"{100 * fraction:g} %"

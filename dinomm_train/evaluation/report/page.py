"""One page that shows an evaluation, and needs no other file and no network to be seen."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from importlib.resources import files

from matplotlib.figure import Figure

from dinomm_train.evaluation.evaluation import Evaluation
from dinomm_train.evaluation.matrix import Estimate, MatrixRow
from dinomm_train.evaluation.report.markdown import LEGACY_NOTE, how, interval_note
from dinomm_train.evaluation.report.tables import legacy_cells, percent_of_labels

_MEASURES = {
    "micro_ap": "micro mAP",
    "macro_ap": "macro mAP",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
}


def to_page(evaluation: Evaluation, figures: dict[str, Figure]) -> str:
    """The page's HTML, with the figures in it under their titles."""
    style = (files("dinomm_train.evaluation.report") / "page.css").read_text(encoding="utf-8")
    title = html.escape(f"Scores on {evaluation.setup.dataset}")
    metas = (
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
    )
    head = f"{metas}\n<title>{title}</title>\n<style>\n{style}</style>"
    body = "\n".join([f"<h1>{title}</h1>", *_sections(evaluation, figures)])
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _sections(evaluation: Evaluation, figures: dict[str, Figure]) -> Iterator[str]:
    if evaluation.rows:
        yield _score_table(evaluation.rows)
        yield f"<p>{html.escape(interval_note(evaluation.setup))}</p>"
    for title, figure in figures.items():
        yield _figure_section(title, figure)
    if evaluation.legacy:
        heads, body = legacy_cells(evaluation.legacy)
        yield "<h2>Legacy: for comparison with published figures only</h2>"
        yield _table(heads, body)
        yield f"<p>{_code(LEGACY_NOTE)}</p>"
    yield "<h2>How</h2>"
    items = how(evaluation.setup).removeprefix("- ").split("\n- ")
    yield "<ul>\n" + "\n".join(f"<li>{_code(item)}</li>" for item in items) + "\n</ul>"


def _score_table(rows: Sequence[MatrixRow]) -> str:
    heads = ["sensors", "labels", "protocol", "network", *_MEASURES.values(), "gain"]
    lines = []
    before = None
    for row in rows:
        key = row.key
        block = (key.sensors, key.fraction, key.protocol)
        cells = [str(key.sensors), percent_of_labels(key.fraction), key.protocol, key.network]
        texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        numbers = "".join(_number_cell(row.scores[name]) for name in _MEASURES)
        gain = row.gains.get("micro_ap")
        numbers += "<td></td>" if gain is None else _number_cell(gain, signed=True)
        kind = ' class="first"' if block != before else ""
        lines.append(f"<tr{kind}>{texts}{numbers}</tr>")
        before = block
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return (
        f'<div class="wide"><table>\n<tr>{head}</tr>\n' + "\n".join(lines) + "\n</table></div>\n"
        "<p>All in %. Gain: micro mAP above the untrained network (fine-tuned: above training from "
        "scratch), its interval from the same resamples of both.</p>"
    )


def _number_cell(one: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    spread = "" if one.spread is None else f" ± {100 * one.spread:.1f}"
    return (
        f'<td class="number"><b>{100 * one.mean:{sign}.1f}</b>{spread} '
        f"<i>[{100 * one.low:{sign}.1f}, {100 * one.high:{sign}.1f}]</i></td>"
    )


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in body]
    rows = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{rows}\n</table></div>'


def _figure_section(title: str, figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    picture = base64.b64encode(buffer.getvalue()).decode()
    name = html.escape(title)
    image = f'<img alt="{name}" src="data:image/png;base64,{picture}">'
    return f'<h2>{name}</h2>\n<div class="wide">{image}</div>'


def _code(text: str) -> str:
    """The text with what stands between backticks set as code."""
    parts = html.escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)
    )

"""An evaluation on disk, each file whole."""

import json
from collections.abc import Collection
from pathlib import Path

from bigearth_prep.whole_file import whole_file, write_text
from dinomm_train.evaluation.evaluation import Evaluation
from dinomm_train.evaluation.pictures.charts import (
    draw_classes,
    draw_groups,
    draw_label_curves,
    draw_scores,
)
from dinomm_train.evaluation.pictures.gallery import Gallery
from dinomm_train.evaluation.report.markdown import to_markdown
from dinomm_train.evaluation.report.page import to_page
from dinomm_train.evaluation.report.tables import to_csv, to_group_csv, to_plain

OPTIONAL_FILES = (
    "labels.png",
    "groups.png",
    "attention.png",
    "neighbours.png",
    "scores.png",
    "classes.png",
    "labels/labels-*-seed-*.txt",
)
"""What one report holds and another may not."""


def write_report(evaluation: Evaluation, folder: Path, gallery: Gallery) -> tuple[Path, ...]:
    """The paths written, the page that holds all first.

    Args:
        evaluation: What was found.
        folder: Where to write; made if absent.
        gallery: More pictures, after those of the scores.
    """
    figures = draw_figures(evaluation) | gallery
    pictures = {title: figure for title, (_, figure) in figures.items()}
    texts = {
        "report.html": to_page(evaluation, pictures),
        "scores.md": to_markdown(evaluation),
        "scores.json": json.dumps(to_plain(evaluation), indent=2, ensure_ascii=False) + "\n",
        "scores.csv": to_csv(evaluation.rows),
        "groups.csv": to_group_csv(evaluation.rows),
    }
    texts |= {
        f"labels/{name}": "".join(f"{key}\n" for key in keys)
        for name, keys in evaluation.subsets.items()
    }
    names = (*texts, *(name for name, _ in figures.values()))
    is_reused = (folder / "scores.json").exists()
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, figure in figures.values():
        with whole_file(folder / name) as partial:
            figure.savefig(partial, format="png", dpi=150)
    if is_reused:
        _remove_others(folder, names)
    return tuple(folder / name for name in names)


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Take away what an earlier report left and this one does not write anew."""
    for pattern in OPTIONAL_FILES:
        for path in folder.glob(pattern):
            if path.relative_to(folder).as_posix() not in names:
                path.unlink()


def draw_figures(evaluation: Evaluation) -> Gallery:
    """File names and figures by title, of those that the scores give something to."""
    rows = evaluation.rows
    if not rows:
        return {}
    figures: Gallery = {"Scores": ("scores.png", draw_scores(evaluation))}
    if len({row.key.fraction for row in rows}) > 1:
        figures["Scores by share of labels"] = ("labels.png", draw_label_curves(evaluation))
    figures["Classes"] = ("classes.png", draw_classes(evaluation))
    if rows[0].groups:
        figures["Kinds of patches"] = ("groups.png", draw_groups(evaluation))
    return figures

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2

from dinomm_train.evaluation.pictures.charts import draw_scores
from dinomm_train.evaluation.report.files import draw_figures, write_report
from dinomm_train.evaluation.report.tables import to_plain
from tests.evaluation_fixture import make_evaluation


class _Tags(HTMLParser):
    """Fails on tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_one_page_tables_pictures_and_labelled_keys(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    extra = {"Another": ("another.png", draw_scores(evaluation))}
    paths = write_report(evaluation, tmp_path, extra)
    assert all(path.is_file() for path in paths)
    assert not list(tmp_path.rglob("*.partial"))
    assert json.loads((tmp_path / "scores.json").read_text()) == to_plain(evaluation)
    assert (tmp_path / "labels/labels-0.1-seed-0.txt").read_text() == "patch_b\npatch_a\n"
    for path in tmp_path.glob("*.png"):
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 5
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r'(src|href)="(?!data:)', page), "it needs no other file"
    assert 'name="viewport"' in page
    wide = re.findall(r"<table>|<img ", page)
    assert page.count('<div class="wide">') == len(wide), "what is wide scrolls by itself"
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []


def test_names_from_outside_are_text_in_the_page(tmp_path: Path) -> None:
    evaluation = make_evaluation(fractions=(1.0,))
    setup = dataclasses.replace(evaluation.setup, dataset="<script>alert(1)</script>")
    write_report(dataclasses.replace(evaluation, setup=setup), tmp_path, {})
    assert "<script>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pictures_without_something_to_show_are_left_out() -> None:
    evaluation = make_evaluation(fractions=(1.0,))
    assert "Scores by share of labels" not in draw_figures(evaluation)
    bare = tuple(dataclasses.replace(row, groups=()) for row in evaluation.rows)
    assert "Kinds of patches" not in draw_figures(dataclasses.replace(evaluation, rows=bare))
    assert draw_figures(dataclasses.replace(evaluation, rows=())) == {}


def test_what_an_earlier_call_wrote_and_this_one_does_not_is_taken_away(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    (tmp_path / "groups.png").write_bytes(b"a reader's own, before any report")
    fewer = dataclasses.replace(make_evaluation(fractions=(1.0,)), subsets={})
    bare = tuple(dataclasses.replace(row, groups=()) for row in fewer.rows)
    write_report(dataclasses.replace(fewer, rows=bare), tmp_path, {})
    assert (tmp_path / "groups.png").read_bytes().startswith(b"a reader's own")
    attention = {"What the network looks at": ("attention.png", draw_scores(evaluation))}
    first = write_report(evaluation, tmp_path, attention)
    (tmp_path / "own.png").write_bytes(b"a reader's own")
    (tmp_path / "labels" / "own.txt").write_text("a reader's own")
    second = write_report(fewer, tmp_path, {})
    gone = {path.relative_to(tmp_path).as_posix() for path in set(first) - set(second)}
    assert gone == {"attention.png", "labels.png", "labels/labels-0.1-seed-0.txt"}
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*second, tmp_path / "own.png", tmp_path / "labels" / "own.txt"}

"""The page of a dataset: whole in one file, with the counts of the manifest in it."""

import html
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from bigearth_prep.bands import select_bands
from bigearth_prep.manifest import read_manifest
from bigearth_prep.pictures.page import PageConfig, write_page
from tests.archive_fixture import build, copy_archive

CONFIG = PageConfig(histogram_samples=3, sheet_patches=2)


class Outline(HTMLParser):
    """Notes every address, and whether tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img"}:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


def test_a_page_is_whole_in_itself_and_counts_what_the_manifest_holds(
    v2_archive: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    min(archive.glob("BigEarthNet-S2/*/*/*_B05.tif")).unlink()
    build(archive, tmp_path / "out")
    write_page(tmp_path / "out", tmp_path / "page.html", CONFIG)
    text = (tmp_path / "page.html").read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.open_tags == []
    assert len(outline.addresses) == 3
    assert all(address.startswith("data:image/png;base64,") for address in outline.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert 'name="viewport"' in text
    assert text.count('<div class="wide"><img') == len(outline.addresses)
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="count">([\d,]+)</td>', text)
    counts = {html.unescape(name): int(count) for name, count in rows}
    manifest = read_manifest(tmp_path / "out").to_pylist()
    expected = Counter(label for row in manifest for label in row["labels"])
    expected.update(row["country"] for row in manifest)
    expected.update(row["split"] for row in manifest)
    expected.update(f"{row['s2_time']:%Y-%m}" for row in manifest)
    expected["missing band"] = 1
    assert {name: count for name, count in counts.items() if count} == expected
    assert f"All pixels of 3 of {len(manifest)} samples, drawn with seed 0" in text


def test_the_same_dataset_gives_the_same_page(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out", shard_format="zarr")
    for name in ("a.html", "b.html"):
        write_page(tmp_path / "out", tmp_path / name, CONFIG)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_dataset_without_the_bands_of_a_picture_is_shown_by_its_first_band(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out", bands=select_bands(["B05"]))
    write_page(tmp_path / "out", tmp_path / "page.html", CONFIG)
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/png") == 3
    assert "<h2>Patches</h2>" in text

"""The examples of docs/collections.md are what the code takes."""

import re
from pathlib import Path

from bigearth_prep import collection_file, pairs_file
from bigearth_prep.bands import bands_of
from bigearth_prep.collection_file import read_collection
from bigearth_prep.pairing import TableConfig
from bigearth_prep.table_pairs import tabled_pairs

PAGE = Path(__file__).parents[3] / "docs" / "collections.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_pages_description_and_table_go_together(tmp_path: Path) -> None:
    description, listing = blocks("toml")
    (tmp_path / "collection.toml").write_text(description + listing)
    (tmp_path / "pairs.csv").write_text(blocks("csv")[0])
    collection = read_collection(tmp_path / "collection.toml")
    assert collection.listing is not None
    assert len(bands_of("s2", collection.bands)) == 4
    found = tabled_pairs(
        tmp_path / "pairs.csv",
        collection,
        collection.bands,
        TableConfig(),
        {"s2": tmp_path, "s1": tmp_path},
    )
    rows = {row["key"]: row for row in found.table.pairs.to_pylist()}
    assert len(rows) == 3
    assert rows["scene_0001_may"]["labels"] == ["maize", "grass"]
    assert rows["scene_0002_may"]["labels"] == []
    assert rows["scene_0002_may"]["split"] == "test"


def test_the_page_names_every_column_of_a_table_and_every_field_of_a_description() -> None:
    text = PAGE.read_text(encoding="utf-8")
    fields = set.union(*collection_file._KEYS.values()) | set(pairs_file._TYPES)
    assert [name for name in sorted(fields) if not re.search(rf"\b{name}\b", text)] == []

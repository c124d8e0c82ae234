from pathlib import Path

import numpy as np

from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.pictures.gallery import choose_patch
from dinomm_train.evaluation.pictures.neighbours import Search, draw_neighbours, nearest_patches
from tests.shard_fixture import make_dataset


def search(count: int) -> Search:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 8)).astype(np.float32)
    scaled = features * rng.uniform(0.1, 9, size=(count, 1)).astype(np.float32)
    return Search(query="s2", gallery="s1", query_features=features, gallery_features=scaled)


def test_the_nearest_by_cosine_come_first_whatever_their_length() -> None:
    one = search(12)
    query = one.query_features[4]
    cosines = [
        float(row @ query / np.sqrt(row @ row) / np.sqrt(query @ query))
        for row in one.gallery_features
    ]
    expected = sorted(range(12), key=lambda row: -cosines[row])[:5]
    found = nearest_patches(one, 4)
    assert [position for position, _ in found] == expected
    assert found[0][0] == 4, "the same patch, only longer"
    np.testing.assert_allclose(
        [cosine for _, cosine in found], sorted(cosines)[::-1][:5], rtol=1e-5
    )


def test_a_row_shows_the_query_and_what_is_found_with_its_cosine(tmp_path: Path) -> None:
    dataset = StoredDataset.open(make_dataset(tmp_path, samples={"test": 6}, size_px=8))
    split = dataset.split("test")
    position = choose_patch(split)
    assert split.labels[position].sum() == split.labels.sum(axis=1).max()
    figure = draw_neighbours(dataset, split, [search(6), search(6)], position)
    figure.canvas.draw()
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == 2 * 6
    assert titles[0] == "query, s2"
    assert titles[1] == "s1  1.00 (itself)"

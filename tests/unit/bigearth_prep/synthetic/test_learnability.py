"""What channel statistics know about the labels: something, not all, and each sensor its part."""

import numpy as np
import pytest
from rasterio.io import MemoryFile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bigearth_prep.labels import multi_hot
from bigearth_prep.synthetic.patch_files import PatchFiles, make_s1_patch, make_s2_patch
from bigearth_prep.synthetic.places import plan_pairs

PAIRS = 600


def _channel_statistics(patch: PatchFiles) -> list[float]:
    """Mean and standard deviation of each band."""
    statistics = []
    for content in patch.files.values():
        with MemoryFile(content) as memory, memory.open() as raster:
            pixels = raster.read(1)
        statistics += [float(pixels.mean()), float(pixels.std())]
    return statistics


def _micro_ap(features: np.ndarray, truth: np.ndarray, train: np.ndarray) -> float:
    """Pooled average precision, off the training locations, of one logistic model per class."""
    known = truth[train].any(axis=0)
    model = make_pipeline(
        StandardScaler(), OneVsRestClassifier(LogisticRegression(C=1.0, max_iter=2000))
    )
    model.fit(features[train], truth[train][:, known])
    scores = np.zeros(truth[~train].shape)
    scores[:, known] = model.predict_proba(features[~train])
    return float(average_precision_score(truth[~train].ravel(), scores.ravel()))


@pytest.mark.slow
def test_channel_statistics_score_above_chance_below_perfect_and_best_together() -> None:
    pairs = plan_pairs(PAIRS, seed=0)
    s1_patches = [make_s1_patch(pair, "v2", seed=0) for pair in pairs]
    s2_patches = [make_s2_patch(pair, "v2", seed=0) for pair in pairs]
    truth = np.stack([multi_hot(patch.labels) for patch in s2_patches])
    train = np.array([pair.place.split == "train" for pair in pairs])
    s1 = np.array([_channel_statistics(patch) for patch in s1_patches])
    s2 = np.array([_channel_statistics(patch) for patch in s2_patches])
    frequencies = np.broadcast_to(truth[train].mean(axis=0), truth[~train].shape)
    chance = average_precision_score(truth[~train].ravel(), frequencies.ravel())

    s1_ap, s2_ap = _micro_ap(s1, truth, train), _micro_ap(s2, truth, train)
    both_ap = _micro_ap(np.hstack([s1, s2]), truth, train)

    assert s1_ap > 1.3 * chance
    assert s2_ap > 1.3 * chance
    assert both_ap > 1.05 * max(s1_ap, s2_ap)
    assert both_ap < 0.8

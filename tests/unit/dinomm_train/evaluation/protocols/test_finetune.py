import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from dinomm_train.data.crops import CropBoxes, cut_crops
from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.images import InputSize
from dinomm_train.evaluation.protocol_config import FinetuneConfig
from dinomm_train.evaluation.protocols import finetune as module
from dinomm_train.evaluation.protocols.finetune import FinetuneTask, finetune, predict_split
from dinomm_train.models.backbone import Backbone
from dinomm_train.models.frozen import expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset

FAST = FinetuneConfig(epochs=15, batch_size=16, learning_rates=(1e-2,), layer_decay=1.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> FinetuneTask:
    samples = {"train": 96, "validation": 24, "test": 24}
    dataset = StoredDataset.open(make_dataset(tmp_path_factory.mktemp("dataset"), samples=samples))
    frozen = untrained(TINY_MODEL, expected_input(dataset.card, TINY_RUN.views), seed=0, origin="")
    return FinetuneTask(
        frozen=frozen,
        size=InputSize(crop_px=32, input_px=32, antialias=False),
        dataset=dataset,
        train=dataset.split("train"),
        positions=np.arange(96),
        validation=dataset.split("validation"),
        validation_positions=np.arange(24),
        sensors="s1+s2",
        seed=0,
        device=torch.device("cpu"),
    )


def test_the_network_learns_its_labels_and_the_frozen_one_stays_as_it_was(
    task: FinetuneTask,
) -> None:
    before = {name: one.clone() for name, one in task.frozen.network.state_dict().items()}
    told: list[int] = []
    best = finetune(task, FAST, told.append)
    assert sum(told) == 15 * 96
    after = task.frozen.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    found = predict_split(best.model, task, task.train, np.arange(96), "s1+s2")
    labels = task.train.labels
    score = average_precision_score(labels.ravel(), found.ravel())
    assert score > labels.mean() + 0.04
    validation = predict_split(best.model, task, task.validation, np.arange(24), "s1+s2")
    assert best.validation_micro_ap == pytest.approx(
        average_precision_score(task.validation.labels.ravel(), validation.ravel()), abs=1e-6
    ), "the weights of the best epoch are kept"


@pytest.mark.parametrize(("labelled", "scored"), [(96, 15), (24, 15), (12, 8), (6, 5), (1, 5)])
def test_few_labels_do_not_make_validation_the_work(
    task: FinetuneTask, monkeypatch: pytest.MonkeyPatch, labelled: int, scored: int
) -> None:
    scores: list[float] = []

    def score_better_each_time(*_: object) -> float:
        scores.append(len(scores) / 100)
        return scores[-1]

    monkeypatch.setattr(module, "_training_batches", lambda *_: iter(()))
    monkeypatch.setattr(module, "_validation_score", score_better_each_time)
    few = dataclasses.replace(task, positions=np.arange(labelled))
    assert finetune(few, FAST).epoch == FAST.epochs, "the last one is scored"
    assert len(scores) == scored


def test_the_same_seed_ends_with_the_same_network_and_another_with_another(
    task: FinetuneTask,
) -> None:
    short = dataclasses.replace(FAST, epochs=1)

    def predicted(seed: int) -> np.ndarray:
        best = finetune(dataclasses.replace(task, seed=seed), short)
        return predict_split(best.model, task, task.validation, np.arange(4), "s2")

    assert np.array_equal(predicted(0), predicted(0))
    assert not np.array_equal(predicted(0), predicted(1))


def test_earlier_blocks_learn_slower_by_the_decay_for_each(task: FinetuneTask) -> None:
    model = module._build_model(task)
    config = dataclasses.replace(FAST, layer_decay=0.5)
    optimizer = module._build_optimizer(model, config, 0.1)
    rates = {
        id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    backbone, layer = model.children()
    assert isinstance(layer, nn.Linear)
    assert isinstance(backbone, Backbone)
    vit = backbone.vit
    # Embedding, two blocks, the last norm, the new layer: from each to the next one half.
    found = [
        rates[id(one)]
        for one in (
            vit.patch_embed.proj.weight,
            *(dict(vit.named_parameters())[f"blocks.{one}.mlp.fc1.weight"] for one in (0, 1)),
            layer.weight,
        )
    ]
    assert found == sorted(found)
    assert found[2] / found[1] == pytest.approx(2)
    assert found[1] / found[0] == pytest.approx(2)
    assert found[3] == 0.1


def test_training_crops_show_the_stated_share_of_the_area_in_all_turns(
    task: FinetuneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[CropBoxes] = []

    def watched(
        images: torch.Tensor, boxes: CropBoxes, *, crop_px: int, antialias: bool
    ) -> torch.Tensor:
        seen.append(boxes)
        return cut_crops(images, boxes, crop_px=crop_px, antialias=antialias)

    monkeypatch.setattr(module, "cut_crops", watched)
    batches = list(module._training_batches(task, FAST, epoch=0))
    assert sorted(len(labels) for _, labels in batches) == [16] * 6
    area = np.concatenate([box.height * box.width for box in seen]) / 32**2
    assert area.min() >= 0.75
    assert area.max() <= 1.0
    for name in ("mirrored", "flipped", "turned"):
        share = np.concatenate([getattr(box, name) for box in seen]).mean()
        assert 0.3 < share < 0.7

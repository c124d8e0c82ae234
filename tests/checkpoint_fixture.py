"""A small run folder, made up: one checkpoint whose teacher differs from its student."""

from pathlib import Path

import torch

from dinomm_train.checkpoint import Checkpoint, save_checkpoint
from dinomm_train.config import (
    CropConfig,
    HeadConfig,
    ModelConfig,
    RunConfig,
    SensorDropConfig,
    ViewConfig,
)
from dinomm_train.data.index import StoredDataset
from dinomm_train.models.student_teacher import build_student_teacher

TINY_MODEL = ModelConfig(patch_px=8, depth=2, width=24, heads=2)

TINY_RUN = RunConfig(
    model=TINY_MODEL,
    head=HeadConfig(hidden=16, bottleneck=8, prototypes=32),
    views=ViewConfig(
        crops=CropConfig(global_px=32, local_px=16), sensor_drop=SensorDropConfig(fill=-1.5)
    ),
)


def write_run(folder: Path, dataset: Path, *, config: RunConfig = TINY_RUN, seed: int = 1) -> Path:
    """The folder, now holding a run on this dataset with one checkpoint at step 3."""
    stored = StoredDataset.open(dataset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pair = build_student_teacher(config, channels=len(stored.card.channels))
        for weight in pair.teacher.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    checkpoint = Checkpoint(
        step=3,
        steps_per_epoch=2,
        config=config,
        card=stored.card,
        dataset_checksum=stored.checksum,
        student=pair.student.state_dict(),
        teacher=pair.teacher.state_dict(),
        loss={},
        optimizer={},
        skips={},
    )
    save_checkpoint(folder, checkpoint, keep_last=1)
    return folder

"""The paper recipe's step against the published one, written plainly, over a stretch of training.

Both start from the same weights and see the same crops and the same stochastic depth.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.plain_step import PlainShape, PlainStep, PlainValues
from dinomm_train.config import RECIPES, CropConfig, HeadConfig, ModelConfig, RunConfig
from dinomm_train.data.draws import Purpose, ViewKey, view_uniforms
from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.data.views import make_views
from dinomm_train.distributed import Ranks
from dinomm_train.learner import Learner
from dinomm_train.schedules import step_values

STEPS, STEPS_PER_EPOCH, BATCH, CHANNELS = 50, 10, 4, 14
SHAPE = PlainShape(
    width=48, heads=3, depth=4, table_side=6, hidden=64, bottleneck=32, prototypes=512
)
SCALING = InputScaling(
    channels=SensorChannels(s2=slice(0, 12), s1=slice(12, 14)),
    gain=np.ones(CHANNELS, dtype=np.float32),
    bias=np.zeros(CHANNELS, dtype=np.float32),
    physical_per_input=np.ones(CHANNELS, dtype=np.float32),
    physical_at_zero=np.zeros(CHANNELS, dtype=np.float32),
    valid_range=(0.0, 1.0),
)


def small_paper_run() -> RunConfig:
    paper = RECIPES["paper"]
    return replace(
        paper,
        model=ModelConfig(
            name="vit_tiny_patch16_224",
            patch_px=8,
            width=SHAPE.width,
            heads=SHAPE.heads,
            depth=SHAPE.depth,
            table_px=8 * SHAPE.table_side,
            table_resampling="published",
        ),
        head=HeadConfig(
            hidden=SHAPE.hidden, bottleneck=SHAPE.bottleneck, prototypes=SHAPE.prototypes
        ),
        views=replace(paper.views, crops=CropConfig(global_px=32, local_px=16, local_count=8)),
        schedule=replace(paper.schedule, epochs=5, warmup_epochs=1, lr=0.02),
    )


@pytest.mark.slow
def test_fifty_steps_of_the_paper_recipe_follow_the_published_step_s_loss() -> None:
    config = small_paper_run()
    ours = Learner(config, Ranks(rank=0, world=1, device=torch.device("cpu")), channels=CHANNELS)
    plain = PlainStep(SHAPE)
    plain.load_ours(ours.networks.student.state_dict())
    losses, expected = [], []
    for step in range(STEPS):
        values = step_values(step, config, steps_per_epoch=STEPS_PER_EPOCH)
        sample_ids = np.arange(step * BATCH, (step + 1) * BATCH, dtype=np.uint64) % 40
        key = ViewKey(seed=0, epoch=values.epoch, sample_ids=sample_ids)
        images = torch.stack([image_of(int(sample)) for sample in sample_ids])
        views = make_views(images, key, config.views, SCALING)
        uniforms = view_uniforms(key, Purpose.DEPTH, views=range(10), draws=2 * SHAPE.depth)
        expected.append(
            plain.step(
                views.student_crops,
                PlainValues(
                    lr=values.lr,
                    weight_decay=values.weight_decay,
                    teacher_momentum=values.teacher_momentum,
                    last_layer_frozen=values.last_layer_frozen,
                ),
                torch.from_numpy(uniforms.reshape(10 * BATCH, -1).T),
                views.teacher_crops,
            )
        )
        losses.append(float(ours.step(views, values, step).loss))
    assert np.abs(np.array(losses) - expected).max() < 1e-4
    assert np.ptp(losses) > 0.5


def image_of(sample: int) -> torch.Tensor:
    """A smooth random image of its own for each sample."""
    generator = torch.Generator().manual_seed(sample)
    coarse = torch.rand(1, CHANNELS, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear")[0]

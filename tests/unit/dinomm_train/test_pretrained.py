from pathlib import Path

import pytest
import torch

from dinomm_train import load_backbone
from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.errors import TrainError
from dinomm_train.pretrained import read_frozen_backbone
from tests.checkpoint_fixture import write_run
from tests.shard_fixture import make_dataset


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", make_dataset(tmp_path / "data", samples={"train": 1}))


def test_run_folder_and_checkpoint_file_give_the_teacher(run: Path) -> None:
    teacher = read_checkpoint(run).teacher
    (file,) = (run / "checkpoints").glob("*.pt")
    for path in (run, file):
        loaded = load_backbone(path).state_dict()
        assert len(loaded) > 10
        assert all(torch.equal(teacher[f"backbone.{name}"], one) for name, one in loaded.items())


def test_a_run_tells_fill_crop_and_step(run: Path) -> None:
    frozen = read_frozen_backbone(run)
    assert (frozen.expects.fill, frozen.expects.crop_px) == (-1.5, 32)
    assert frozen.origin.endswith("(step 3)")


def test_loading_by_name_gives_features_of_the_class_token(run: Path) -> None:
    assert load_backbone(str(run))(torch.rand(3, 14, 32, 32)).shape == (3, 24)


@pytest.mark.parametrize("content", [b"", b"no zip file"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(TrainError, match="not a readable checkpoint"):
        read_frozen_backbone(path)


def test_tensors_alone_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save(torch.zeros(2), path)
    with pytest.raises(TrainError, match="holds a Tensor, not a checkpoint"):
        read_frozen_backbone(path)


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="absent does not exist"):
        read_frozen_backbone(tmp_path / "absent")

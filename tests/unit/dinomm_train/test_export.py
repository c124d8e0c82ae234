import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dinomm_train import load_backbone
from dinomm_train.config import ModelConfig
from dinomm_train.errors import TrainError
from dinomm_train.export import write_export
from dinomm_train.models.frozen import FrozenBackbone
from dinomm_train.pretrained import read_frozen_backbone
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN, write_run
from tests.shard_fixture import make_dataset

PUBLISHED_TABLE = dataclasses.replace(TINY_MODEL, table_px=64, table_resampling="published")


def frozen_run(folder: Path, model: ModelConfig) -> FrozenBackbone:
    dataset = make_dataset(folder / "dataset", samples={"train": 1})
    config = dataclasses.replace(TINY_RUN, model=model)
    return read_frozen_backbone(write_run(folder / "run", dataset, config=config))


@pytest.mark.parametrize("model", [TINY_MODEL, PUBLISHED_TABLE])
def test_plain_timm_computes_the_same_features_from_an_export(
    tmp_path: Path, model: ModelConfig
) -> None:
    frozen = frozen_run(tmp_path, model)
    path = tmp_path / "backbone.safetensors"
    exported = write_export(frozen, path)
    plain = timm.create_model(exported.name, checkpoint_path=str(path), **exported.arguments)
    images = torch.rand(2, 14, 32, 32)
    expected = frozen.network(images)
    torch.testing.assert_close(plain.eval()(images), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(load_backbone(path)(images), expected, atol=1e-6, rtol=1e-6)
    larger = torch.rand(2, 14, 48, 48)
    torch.testing.assert_close(load_backbone(path)(larger), plain(larger), atol=1e-6, rtol=1e-6)


def test_the_lines_in_the_readme_load_an_export_in_plain_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = frozen_run(tmp_path, PUBLISHED_TABLE)
    write_export(frozen, tmp_path / "backbone.safetensors")
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    blocks = readme.split("```python\n")[1:]
    (lines,) = [block.split("```")[0] for block in blocks if "timm.create_model" in block]
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(lines, found)
    images = torch.rand(2, 14, 32, 32)
    with torch.no_grad():
        features = found["backbone"].eval()(images)
    torch.testing.assert_close(features, frozen.network(images), atol=1e-6, rtol=1e-6)


def test_the_metadata_tell_bands_units_normalization_crop_and_fill(tmp_path: Path) -> None:
    frozen = frozen_run(tmp_path, TINY_MODEL)
    path = tmp_path / "backbone.safetensors"
    write_export(frozen, path)
    with safe_open(path, framework="pt") as file:
        stored = json.loads(file.metadata()["input"])
    assert stored["channels"][-2:] == ["VH", "VV"]
    assert stored["units"]["s1"] == "dB"
    assert stored["scheme"] == "paper"
    assert stored["parameters"]["VV"]["mean"] == -12.6
    assert (stored["crop_px"], stored["fill"]) == (32, -1.5)
    assert read_frozen_backbone(path).expects == frozen.expects


def test_an_export_is_as_readable_to_others_as_any_new_file(tmp_path: Path) -> None:
    exported, ordinary = tmp_path / "backbone.safetensors", tmp_path / "ordinary"
    write_export(frozen_run(tmp_path, TINY_MODEL), exported)
    ordinary.touch()
    assert exported.stat().st_mode == ordinary.stat().st_mode


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(
        TrainError, match=r"not a plain vision transformer's: patch_embed\.proj\.weight is missing"
    ):
        read_frozen_backbone(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(TrainError, match="is not a readable safetensors file"):
        read_frozen_backbone(path)

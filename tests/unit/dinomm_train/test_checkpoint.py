"""Checkpoints are whole or not there, and a damaged one is named and passed over."""

import errno
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigearth_prep.card import read_card
from dinomm_train.checkpoint import (
    Checkpoint,
    clear_leftovers,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from dinomm_train.config import RECIPES
from dinomm_train.errors import TrainError
from dinomm_train.steady_file import SteadyFile
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    dataset = make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 1}, size_px=4)
    student = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.1, betas=(0.8, 0.9))
    student(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpoint(
        step=5,
        steps_per_epoch=3,
        config=RECIPES["paper"],
        card=read_card(dataset),
        dataset_checksum="ab" * 16,
        student=dict(student.state_dict()),
        teacher={"weight": torch.arange(4.0)},
        loss={"centre": torch.ones(3)},
        optimizer=optimizer.state_dict(),
        skips={"total": torch.tensor(4)},
    )


def files_of(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_everything_saved_is_read_back(sample: Checkpoint, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, sample, keep_last=3)
    assert path == tmp_path / "checkpoints" / "step-00000005.pt"
    for found in (read_checkpoint(tmp_path), read_checkpoint(path)):
        assert (found.step, found.steps_per_epoch) == (5, 3)
        assert (found.config, found.card) == (sample.config, sample.card)
        assert found.dataset_checksum == sample.dataset_checksum
        assert torch.equal(found.teacher["weight"], sample.teacher["weight"])
        assert torch.equal(found.student["weight"], sample.student["weight"])
        assert torch.equal(found.loss["centre"], sample.loss["centre"])
        assert found.skips == sample.skips
        average = found.optimizer["state"][0]["exp_avg"]
        assert torch.equal(average, sample.optimizer["state"][0]["exp_avg"])
        assert found.optimizer["param_groups"] == sample.optimizer["param_groups"]


def test_only_the_newest_are_kept(sample: Checkpoint, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, replace(sample, step=step), keep_last=2)
    assert files_of(tmp_path) == ["latest", "step-00000003.pt", "step-00000004.pt"]
    assert read_checkpoint(tmp_path).step == 4


def test_those_of_every_so_many_steps_are_kept_however_old(
    sample: Checkpoint, tmp_path: Path
) -> None:
    for step in range(1, 10):
        save_checkpoint(tmp_path, replace(sample, step=step), keep_last=1, keep_every_steps=4)
    expected = ["latest", "step-00000004.pt", "step-00000008.pt", "step-00000009.pt"]
    assert files_of(tmp_path) == expected


def test_a_process_killed_before_it_deleted_an_old_one_leaves_it_to_the_next_save(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, replace(sample, step=step), keep_last=2)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        save_checkpoint(tmp_path, replace(sample, step=3), keep_last=2)
    assert "step-00000001.pt" in files_of(tmp_path)
    save_checkpoint(tmp_path, replace(sample, step=4), keep_last=2)
    assert files_of(tmp_path) == ["latest", "step-00000003.pt", "step-00000004.pt"]


def test_what_a_killed_process_has_half_written_is_cleared(
    sample: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, sample, keep_last=1)
    (tmp_path / "checkpoints" / "step-00000009.pt.partial").write_bytes(b"half")
    clear_leftovers(tmp_path)
    assert files_of(tmp_path) == ["latest", "step-00000005.pt"]


def test_a_checkpoint_is_a_plain_torch_file_of_tensors_and_plain_values(
    sample: Checkpoint, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path, sample, keep_last=1)
    state = torch.load(path, weights_only=True)
    assert state["step"] == 5
    assert state["config"]["sampling"]["sample_limit"] == 300_000
    assert torch.equal(state["teacher"]["weight"], torch.arange(4.0))
    assert set(state) >= {"student", "loss", "optimizer", "skips", "dataset_checksum", "card"}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: str, sample: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, replace(sample, step=1), keep_last=3)
    newest = save_checkpoint(tmp_path, replace(sample, step=2), keep_last=3)
    content = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(content[:-7])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    else:
        newest.unlink()
    with caplog.at_level(logging.WARNING):
        assert read_checkpoint(tmp_path).step == 1
    assert "step-00000002.pt" in caplog.text


@pytest.mark.parametrize("index", [b"", b"\x00\xff", b"{}", b"[1]", None])
def test_without_a_readable_list_the_newest_whole_file_is_used(
    index: bytes | None, sample: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, whole, cut, foreign = (
        save_checkpoint(tmp_path, replace(sample, step=step), keep_last=4)
        for step in (1, 2, 10, 11)
    )
    cut.write_bytes(cut.read_bytes()[:-7])
    foreign.write_bytes(b"foreign")
    latest = tmp_path / "checkpoints" / "latest"
    latest.unlink() if index is None else latest.write_bytes(index)
    with caplog.at_level(logging.WARNING):
        assert read_checkpoint(tmp_path).step == 2
    *of_the_list, about_foreign, about_cut, last = (one.getMessage() for one in caplog.records)
    assert ["latest cannot be read" in one for one in of_the_list] == [True] * (index is not None)
    for message, path in ((about_foreign, foreign), (about_cut, cut)):
        assert f"{path} is not a readable checkpoint" in message
        assert "\n" not in message
    assert last.startswith(f"taking {whole}, which")


def test_a_run_goes_on_saving_beside_a_damaged_list_and_deletes_nothing_for_it(
    sample: Checkpoint, tmp_path: Path
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, replace(sample, step=step), keep_last=2)
    (tmp_path / "checkpoints" / "latest").write_bytes(b"")
    save_checkpoint(tmp_path, replace(sample, step=3), keep_last=1)
    expected = [f"step-{step:08}.pt" for step in (1, 2, 3)]
    assert files_of(tmp_path) == ["latest", *expected]
    assert read_checkpoint(tmp_path).step == 3
    (tmp_path / "checkpoints" / expected[2]).unlink()
    assert read_checkpoint(tmp_path).step == 2


def test_a_run_with_a_damaged_list_and_no_file_is_not_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_bytes(b"")
    with pytest.raises(TrainError, match=r"latest cannot be read .* start again in another --out"):
        find_checkpoint(tmp_path)


def test_a_disk_that_does_not_give_a_checkpoint_back_has_the_one_before_it_used(
    sample: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save_checkpoint(tmp_path, replace(sample, step=1), keep_last=3)
    newest = save_checkpoint(tmp_path, replace(sample, step=2), keep_last=3)
    real_open = Path.open

    def open_on_a_bad_disk(self: Path, *mode: Any, **how: Any) -> Any:  # noqa: ANN401
        if self == newest:
            raise OSError(errno.EIO, "Input/output error")
        return real_open(self, *mode, **how)

    monkeypatch.setattr(Path, "open", open_on_a_bad_disk)
    with caplog.at_level(logging.WARNING):
        assert read_checkpoint(tmp_path).step == 1
    assert f"{newest}: [Errno 5] Input/output error; taking the one before it" in caplog.text


def test_going_on_from_before_a_damaged_checkpoint_supersedes_it(
    sample: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, replace(sample, step=1), keep_last=3)
    save_checkpoint(tmp_path, replace(sample, step=9), keep_last=3).write_bytes(b"damaged")
    save_checkpoint(tmp_path, replace(sample, step=4), keep_last=3)
    assert files_of(tmp_path) == ["latest", "step-00000001.pt", "step-00000004.pt"]
    assert read_checkpoint(tmp_path).step == 4


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(
    sample: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, sample, keep_last=3).write_bytes(b"damaged")
    with pytest.raises(TrainError, match="none of the 1 checkpoints"):
        find_checkpoint(tmp_path)


def test_a_save_that_fails_leaves_the_old_state(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, replace(sample, step=1), keep_last=3)

    def write_half_and_fail(_: object, file: SteadyFile) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half_and_fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, replace(sample, step=2), keep_last=3)
    assert files_of(tmp_path) == ["latest", "step-00000001.pt"]
    assert read_checkpoint(tmp_path).step == 1


def test_what_the_disk_said_is_not_hidden_by_what_torch_says(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = SteadyFile.write

    def write_to_a_small_disk(self: SteadyFile, content: bytes) -> int:
        if self.tell() > 500:
            raise OSError(28, "No space left on device")
        return real_write(self, content)

    monkeypatch.setattr(SteadyFile, "write", write_to_a_small_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, sample, keep_last=3)


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    with pytest.raises(TrainError, match="holds no checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(TrainError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing.pt")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    names = ("text.pt", "tensor.pt", "foreign.pt", "cut.pt")
    text, tensor, foreign, cut = (tmp_path / name for name in names)
    text.write_text("not a checkpoint", encoding="utf-8")
    torch.save(torch.ones(2), tensor)
    torch.save({"student": {}}, foreign)
    cut.write_bytes(tensor.read_bytes()[:-7])
    for path in (text, tensor, foreign, cut):
        with pytest.raises(TrainError, match=rf"{path.name} is not a readable ch.*$") as refusal:
            read_checkpoint(path)
        assert "\n" not in str(refusal.value)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"format": "dinomm-checkpoint", "hook": Path("x")}, path)
    with pytest.raises(TrainError, match=r"evil\.pt is not a readable checkpoint"):
        read_checkpoint(path)

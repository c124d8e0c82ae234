"""Who a process is, as its launcher's environment says it."""

import os
import signal
from pathlib import Path

import pytest
import torch

from dinomm_train.distributed import (
    Ranks,
    choose_device,
    greatest_over_ranks,
    join_ranks,
    mean_over_ranks,
    most_on_a_machine,
    part,
    pick_gpu,
    read_launch,
    require_gpus_of_their_own,
)
from dinomm_train.errors import TrainError
from dinomm_train.rendezvous import Launch

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_NTASKS": "6",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NODELIST": "gpu[07-09]",
}


def test_a_process_without_a_launcher_is_on_its_own() -> None:
    assert read_launch({}) is None


def test_a_batch_script_that_srun_did_not_start_is_on_its_own() -> None:
    assert read_launch({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) is None


def test_torchrun_s_variables_win_over_slurm_s() -> None:
    assert read_launch(TORCHRUN | SLURM) == Launch(
        rank=3, world=8, local_rank=1, address="node-a", port=29500
    )


def test_a_missing_torchrun_variable_is_named() -> None:
    environment = {key: value for key, value in TORCHRUN.items() if key != "MASTER_PORT"}
    with pytest.raises(TrainError, match="MASTER_PORT"):
        read_launch(environment)


def test_srun_s_processes_meet_at_the_first_host_on_a_port_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$3" = "gpu[07-09]" ] && printf "gpu07\\ngpu08\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert read_launch(SLURM) == Launch(
        rank=5, world=6, local_rank=1, address="gpu07", port=20_000 + 1234567 % 40_000
    )


@pytest.mark.parametrize(
    ("environment", "most"),
    [
        ({}, 8),
        (TORCHRUN, 8),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "4"}, 4),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "4", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,3(x12)"}, 3),
        ({"SLURM_STEP_TASKS_PER_NODE": "16"}, 8),
    ],
)
def test_processes_are_counted_by_machine_where_the_launcher_tells(
    environment: dict[str, str], most: int
) -> None:
    assert most_on_a_machine(environment, world=8) == most


def test_a_node_list_that_scontrol_refuses_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TrainError, match=r"gpu\[07-09\] \(no controller\); set MASTER_ADDR"):
        read_launch(SLURM)


def test_without_scontrol_the_address_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainError, match="set MASTER_ADDR"):
        read_launch(SLURM)
    launch = read_launch(SLURM | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000"})
    assert launch is not None
    assert (launch.address, launch.port) == ("10.0.0.7", 4000)


def test_a_lone_process_is_the_first_and_only_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    with join_ranks("cpu") as ranks:
        assert ranks == Ranks(rank=0, world=1, device=torch.device("cpu"))
        assert ranks.is_first
        assert greatest_over_ranks(7, ranks) == 7
    values = torch.ones(2)
    assert mean_over_ranks(values) is values


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(TrainError, match="--device cpu"):
        choose_device("cuda")


def test_fp32_is_fp32_in_a_gpu_s_convolutions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert not torch.backends.cudnn.allow_tf32


def test_a_rank_that_leaves_others_behind_on_gpus_waits_for_them_a_minute_at_most() -> None:
    part(torch.device("cuda"), is_agreed=False)
    assert 50 <= signal.alarm(0) <= 60
    for device, is_agreed in (("cuda", True), ("cpu", True), ("cpu", False)):
        part(torch.device(device), is_agreed=is_agreed)
        assert signal.alarm(0) == 0


@pytest.mark.parametrize(("local_rank", "visible", "number"), [(0, 4, 0), (3, 4, 3), (0, 1, 0)])
def test_processes_that_see_all_gpus_take_that_of_their_number(
    local_rank: int, visible: int, number: int
) -> None:
    assert pick_gpu(local_rank, visible) == number


@pytest.mark.parametrize("local_rank", [1, 7])
def test_a_process_that_is_shown_its_own_gpu_alone_takes_it(local_rank: int) -> None:
    assert pick_gpu(local_rank, 1) == 0


def test_more_processes_than_the_gpus_that_each_sees_are_refused() -> None:
    with pytest.raises(TrainError, match=r"process 2 .* finds 2 GPUs; start at most one process"):
        pick_gpu(2, 2)


def test_ranks_that_would_share_a_gpu_are_named() -> None:
    require_gpus_of_their_own(["a", "b", "c"])
    require_gpus_of_their_own(["", "", ""])
    with pytest.raises(TrainError, match=r"rank 2 finds no GPU .*--device cpu"):
        require_gpus_of_their_own(["a", "b", "", "c"])
    with pytest.raises(TrainError, match=r"ranks 1 and 3 have the same GPU, b;.*LOCAL_RANK"):
        require_gpus_of_their_own(["a", "b", "c", "b"])


def test_the_number_on_the_machine_is_slurm_s_where_rank_was_set_by_hand() -> None:
    by_hand = {key: value for key, value in TORCHRUN.items() if key != "LOCAL_RANK"}
    on_slurm = read_launch(by_hand | SLURM | {"SLURM_LOCALID": "2"})
    assert on_slurm is not None
    assert on_slurm.local_rank == 2
    alone = read_launch(by_hand)
    assert alone is not None
    assert alone.local_rank == 0

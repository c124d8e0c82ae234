"""All ranks hear the greatest number after the same round."""

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from dinomm_train.agreement import Agreement
from dinomm_train.distributed import Ranks


def say_numbers(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    agreement = Agreement(Ranks(rank=rank, world=2, device=torch.device("cpu")))
    if rank:
        time.sleep(0.2)
    heard = [agreement.exchange(number) for number in ((0, 3, 0) if rank else (1, 2, 0))]
    heard.append(agreement.settle(4 + rank))
    heard.append(agreement.settle(0))
    Path(folder, str(rank)).write_text(repr(heard))
    dist.destroy_process_group()


def test_what_one_rank_says_all_hear_after_the_next_round(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=say_numbers, args=(rank, str(tmp_path))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[0, 1, 3, 5, 0]"] * 2


@pytest.mark.parametrize("number", [0, 15])
def test_a_run_on_its_own_hears_itself_at_once(number: int) -> None:
    agreement = Agreement(Ranks(rank=0, world=1, device=torch.device("cpu")))
    assert agreement.exchange(number) == number
    assert agreement.settle(number) == number

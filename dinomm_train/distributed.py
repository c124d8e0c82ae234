"""The processes of one run: who they are, and what they tell each other."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from dinomm_train.config import DeviceChoice
from dinomm_train.errors import TrainError, first_line
from dinomm_train.rendezvous import NAME_INTERFACE, Launch, call_heeding_signals, meet
from dinomm_train.stop_request import StoppedEarly, StopRequest

Said = TypeVar("Said")

_FIRST_PORT, _PORTS = 20_000, 40_000

_COLLECTIVE_LIMIT = timedelta(hours=2)
"""For the day that the watch over ranks (`hang_watch`) is turned off: it ends a run in minutes."""

_PARTING_S = 60
"""How long a rank that failed may take to leave the others on GPUs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    """Its number, from zero."""

    world: int
    """How many there are."""

    device: torch.device
    """Where it computes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """What torchrun, or else Slurm's srun, set; None for a process on its own.

    Raises:
        TrainError: torchrun's variables are incomplete.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _torchrun_launch(environment)
    # The batch script itself has SLURM_NTASKS too; only a process that srun started has this one.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _slurm_launch(environment)
    return None


def most_on_a_machine(environment: Mapping[str, str], *, world: int) -> int:
    """Most processes that share a machine; all of them where the launcher does not tell."""
    # Slurm writes 2(x3),1 for three machines with two processes each, and one with one.
    told = environment.get("LOCAL_WORLD_SIZE") or environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = re.findall(r"(\d+)(?:\(x\d+\))?", told)
    return min(world, max(map(int, counts), default=world))


def _torchrun_launch(environment: Mapping[str, str]) -> Launch:
    try:
        return Launch(
            rank=int(environment["RANK"]),
            world=int(environment["WORLD_SIZE"]),
            # Who sets RANK by hand under srun may leave this one to Slurm.
            local_rank=int(environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID", "0"))),
            address=environment["MASTER_ADDR"],
            port=int(environment["MASTER_PORT"]),
        )
    except KeyError as error:
        raise TrainError(
            f"RANK and WORLD_SIZE are set, but {error} is not; start with torchrun, or unset them"
        ) from error


def _slurm_launch(environment: Mapping[str, str]) -> Launch:
    # All ranks derive the same port from the job, so that two jobs on a node do not meet.
    job_port = _FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % _PORTS
    return Launch(
        rank=int(environment["SLURM_PROCID"]),
        world=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        address=environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"]),
        port=int(environment.get("MASTER_PORT", job_port)),
    )


def _first_host(node_list: str) -> str:
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        raise TrainError("there is no scontrol to read Slurm's node list; set MASTER_ADDR")
    listing = subprocess.run(  # noqa: S603
        [scontrol, "show", "hostnames", node_list], check=False, capture_output=True, text=True
    )
    if listing.returncode:
        raise TrainError(
            f"scontrol cannot read Slurm's node list {node_list} ({listing.stderr.strip()}); set "
            "MASTER_ADDR"
        )
    return listing.stdout.split()[0]


@contextmanager
def join_ranks(choice: DeviceChoice, stop: StopRequest | None = None) -> Iterator[Ranks]:
    """This process's place in the run; the processes are connected until the block ends.

    Raises:
        TrainError: CUDA was asked for and is not there, two ranks have the same GPU, or the others
            cannot be reached.
        StoppedEarly: a signal came before all were connected.
    """
    launch = read_launch(os.environ)
    device = choose_device(choice, local_rank=launch.local_rank if launch else 0)
    if launch is None or launch.world == 1:
        yield Ranks(rank=0, world=1, device=device)
        return
    ranks = Ranks(rank=launch.rank, world=launch.world, device=device)
    stop = stop or StopRequest()
    store = meet(launch, stop)
    is_agreed = False
    try:
        _connect(ranks, store, stop)
        yield ranks
        is_agreed = True
    except StoppedEarly:
        is_agreed = True
        raise
    finally:
        part(device, is_agreed=is_agreed)


def part(device: torch.device, *, is_agreed: bool) -> None:
    """Leave the other ranks, which do so too if that is agreed."""
    if is_agreed or device.type == "cpu":
        if dist.is_initialized():
            dist.destroy_process_group()
        return
    # NCCL parts when all ranks have done what they began together, and one of them may be gone: at
    # the latest the system ends this process, whose message is out by then.
    signal.alarm(_PARTING_S)


def _connect(ranks: Ranks, store: Store, stop: StopRequest) -> None:
    try:
        call_heeding_signals(lambda: _open_group(ranks, store), stop)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise TrainError(
            f"rank {ranks.rank} has met the others, but cannot exchange with them "
            f"({first_line(error)}); {NAME_INTERFACE}"
        ) from error


def _open_group(ranks: Ranks, store: Store) -> None:
    if is_on_gpu := ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)  # each thread has one of its own
    dist.init_process_group(
        # What hosts tell each other goes past the GPUs, so that neither waits for the other.
        "cpu:gloo,cuda:nccl" if is_on_gpu else "gloo",
        store=PrefixStore("ranks", store),
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=_COLLECTIVE_LIMIT,
    )
    uuid = str(torch.cuda.get_device_properties(ranks.device).uuid) if is_on_gpu else ""
    require_gpus_of_their_own(gather_objects(uuid, ranks))


def choose_device(choice: DeviceChoice, *, local_rank: int = 0) -> torch.device:
    """The device to compute on; `auto` takes a GPU where there is one.

    Raises:
        TrainError: CUDA was asked for and is not there, or has several GPUs, fewer than processes.
    """
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainError("--device cuda: torch finds no CUDA device; use --device cpu")
    # torch rounds what convolutions take to 10 bits unless told: fp32 is to mean fp32 everywhere.
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda", pick_gpu(local_rank, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def pick_gpu(local_rank: int, visible: int) -> int:
    """Which of the GPUs that it sees a process takes, by its number among those of its machine.

    Raises:
        TrainError: it sees several, and still fewer than there are processes.
    """
    if visible == 1:
        return 0  # launchers may show each process its own alone, under the same number
    if local_rank >= visible:
        raise TrainError(
            f"process {local_rank} of this machine finds {visible} GPUs; start at most one process "
            "per GPU"
        )
    return local_rank


def require_gpus_of_their_own(uuids: Sequence[str]) -> None:
    """Return nothing where each rank, in whose order they are named, has a GPU of its own.

    Or where none has any, and all names are empty.

    Raises:
        TrainError: two have the same, or some none; on every rank.
    """
    if not any(uuids):
        return
    for rank, uuid in enumerate(uuids):
        if not uuid:
            raise TrainError(
                f"rank {rank} finds no GPU and would compute on a CPU, while others have one; see "
                "what nvidia-smi says on its machine, or give all --device cpu"
            )
        if (other := uuids.index(uuid)) < rank:
            raise TrainError(
                f"ranks {other} and {rank} have the same GPU, {uuid}; start at most one process "
                "per GPU, and tell each its number on its machine (LOCAL_RANK, as torchrun does)"
            )


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a tensor over all ranks; the tensor itself where there is one rank."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def norms_over_ranks(norms: Float[Tensor, " tensor"]) -> Float[Tensor, " tensor"]:
    """The Euclidean norms of tensors of which each rank gives the norm of its part."""
    squares = norms.square()
    dist.all_reduce(squares)
    return squares.sqrt()


def greatest_over_ranks(number: int, ranks: Ranks) -> int:
    """The greatest of one whole number per rank: how all learn what one has seen."""
    if ranks.world == 1:
        return number
    greatest = torch.tensor(number)  # on the host: no device is waited for
    dist.all_reduce(greatest, op=dist.ReduceOp.MAX)
    return int(greatest.item())


def gather_objects(own: Said, ranks: Ranks) -> list[Said]:
    """What each rank says, in their order, on every rank; it travels between the hosts."""
    if ranks.world == 1:
        return [own]
    said: list[Said | None] = [None] * ranks.world
    dist.all_gather_object(said, own)
    return cast("list[Said]", said)


def gather_rows(rows: Tensor, ranks: Ranks) -> Tensor:
    """The rows of all ranks, on every rank; each gives equally many.

    They are dealt in turn: row `i` is number `i // world` of rank `i % world`.
    """
    if ranks.world == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(ranks.world)]
    dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)

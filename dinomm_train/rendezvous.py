"""Where the processes of a run meet: they wait for each other, and for signals meanwhile."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from dinomm_train.errors import TrainError, first_line
from dinomm_train.stop_request import StoppedEarly, StopRequest

START_LIMIT = timedelta(minutes=10)
"""How long processes wait for each other: nodes may start minutes apart, and import slowly."""

NAME_INTERFACE = (
    "let the nodes reach each other, and name their network interface where there are several: "
    "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
)
"""What to do where processes know each other's addresses and do not reach them."""

Given = TypeVar("Given")

_LOOK_S = 0.05
_GRACE_S = 10.0
"""How long a process with a signal still waits for the others, so that all end together."""

_GONE = -1_000_000
"""Number of arrivals once somebody has left: no later arrival makes it positive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What a launcher told this process through its environment."""

    rank: int
    world: int
    local_rank: int
    """Its number among the processes of its machine; the GPU it takes."""
    address: str
    """Host name of rank zero."""
    port: int


def meet(launch: Launch, stop: StopRequest) -> Store:
    """The store that all processes share, once all of them are there.

    Raises:
        TrainError: rank zero cannot be reached, or others did not come in time.
        StoppedEarly: a signal came while others were still missing; then none goes on.
    """
    patience = _Patience(stop)
    store = _connect(launch, patience)
    # torchrun's store outlives the processes that it starts again.
    place = f"dinomm/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store.set(f"{place}/here/{launch.rank}", "")
    arrived = store.add(f"{place}/arrivals", 1)
    deadline_s = time.monotonic() + START_LIMIT.total_seconds()
    while arrived != launch.world:
        if arrived < 0:
            raise StoppedEarly(stop.signal_number or signal.SIGTERM)
        if time.monotonic() > deadline_s:
            raise TrainError(_tell_missing(store, f"{place}/here", launch))
        if patience.is_over():
            # Fails where another has come just now: then the wait may be over after all.
            store.compare_set(f"{place}/arrivals", str(arrived), str(_GONE))
        time.sleep(_LOOK_S)
        arrived = store.add(f"{place}/arrivals", 0)
    return store


def _tell_missing(store: Store, place: str, launch: Launch) -> str:
    missing = [rank for rank in range(launch.world) if not store.check([f"{place}/{rank}"])]
    return (
        f"of {launch.world} ranks, {', '.join(map(str, missing))} did not come within "
        f"{START_LIMIT.total_seconds():.0f} s; look for their messages, and start all again"
    )


class _Patience:
    """Ends some seconds after a signal was noted."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._end_s = math.inf

    def is_over(self) -> bool:
        now_s = time.monotonic()
        if self._stop.signal_number:
            self._end_s = min(self._end_s, now_s + _GRACE_S)
        return now_s >= self._end_s

    def require(self) -> None:
        if self.is_over():
            raise StoppedEarly(self._stop.signal_number)


def _connect(launch: Launch, patience: _Patience) -> Store:
    try:
        return _call(lambda: connect_store(launch, is_host=is_store_host(launch)), patience)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise TrainError(
            f"rank {launch.rank} cannot meet the others at {launch.address}:{launch.port} "
            f"({first_line(error)}); check that MASTER_ADDR is known on every node and "
            "that MASTER_PORT is free"
        ) from error


def call_heeding_signals(call: Callable[[], Given], stop: StopRequest) -> Given:
    """What the call gives, which waits for other processes and meanwhile hears of no signal.

    Raises:
        StoppedEarly: a signal came some seconds ago, and it waits still.
        TimeoutError: it waits for longer than processes do for each other.
    """
    return _call(call, _Patience(stop))


def _call(call: Callable[[], Given], patience: _Patience) -> Given:
    given: Future[Given] = Future()
    threading.Thread(target=_fulfil, args=(call, given), name="rendezvous", daemon=True).start()
    deadline_s = time.monotonic() + START_LIMIT.total_seconds()
    while not given.done():
        patience.require()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no answer for {START_LIMIT.total_seconds():.0f} s")
        wait([given], timeout=_LOOK_S)
    return given.result()


def _fulfil(call: Callable[[], Given], given: Future[Given]) -> None:
    try:
        given.set_result(call())
    except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
        given.set_exception(error)


def is_store_host(launch: Launch) -> bool:
    """Whether this process holds the store; torchrun does where it is the launcher."""
    by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return launch.rank == 0 and not by_agent


def connect_store(
    launch: Launch, *, is_host: bool = False, timeout: timedelta = START_LIMIT
) -> Store:
    """A connection of its own to the store; its answers may take so long."""
    return TCPStore(
        launch.address,
        launch.port,
        launch.world,
        is_master=is_host,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )

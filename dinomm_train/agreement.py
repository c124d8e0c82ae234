"""What all ranks agree on: numbers that one of them says, heard by all after the same step."""

import torch
import torch.distributed as dist

from dinomm_train.distributed import Ranks


class Agreement:
    """The greatest number that any rank said.

    Every rank takes part equally often, in the same order. The numbers travel between the hosts
    (gloo), so that no GPU is waited for.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._said = torch.zeros((), dtype=torch.int64)
        self._round: dist.Work | None = None

    def exchange(self, number: int) -> int:
        """The greatest number of the round before; this round's is on its way meanwhile.

        So a step waits for no message: what is said after one step is heard after the next. A run
        on its own hears itself at once.
        """
        if self._ranks.world == 1:
            return number
        heard = self._finish()
        self._said = torch.tensor(number)
        self._round = dist.all_reduce(self._said, op=dist.ReduceOp.MAX, async_op=True)
        return heard

    def settle(self, number: int) -> int:
        """The greatest number of this round and of the one still on its way."""
        return max(self.exchange(number), self._finish())

    def _finish(self) -> int:
        if self._round is None:
            return 0
        self._round.wait()
        self._round = None
        return int(self._said)

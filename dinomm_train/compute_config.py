"""How the step is computed, which is not what it computes."""

from dataclasses import dataclass
from typing import Literal

from dinomm_train.config_checks import require_not_negative

Sharding = Literal["none", "fsdp"]
"""Whether each process holds both networks whole (DDP), or a share of each weight (FSDP2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig:
    """How a step is computed: what changes rounding alone, also while a run continues."""

    micro_batch: int = 0
    """Samples of a rank that go through the student at once, where a GPU's memory does not hold
    all; gradients add up to those of the whole. Zero takes all at once."""

    checkpoint_activations: bool = False
    """Whether blocks are computed anew for the backward pass instead of being stored: about a
    quarter more computing, and a small share of the memory."""

    compile: bool = False
    """Whether blocks are compiled. Off: others found compiled training to learn less well."""

    sharding: Sharding = "none"
    """Whether processes share out weights, gradients and AdamW's state (`fsdp`) and gather them
    block by block, or each holds all (`none`). For networks that do not fit: slower where they
    do."""

    def __post_init__(self) -> None:
        require_not_negative(self, "micro_batch")

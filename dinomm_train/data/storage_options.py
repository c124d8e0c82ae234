"""Where the shards of a dataset that lies elsewhere are kept, and what is done about its source."""

from dataclasses import dataclass, field
from pathlib import Path

from dinomm_train.config_checks import require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """What is done about a source that fails."""

    attempts: int = 5
    """Times that a file is asked for."""

    pause_s: float = 1.0
    """Seconds before the second attempt; each further pause is twice as long."""

    stall_s: float = 30.0
    """Seconds without a byte after which an attempt is given up."""

    def __post_init__(self) -> None:
        require_positive(self, "attempts", "stall_s")
        require_not_negative(self, "pause_s")

    @property
    def longest_s(self) -> float:
        """Seconds until a source that never sends a byte is given up."""
        pauses = sum(self.pause_s * (1 << number) for number in range(self.attempts - 1))
        return self.attempts * self.stall_s + pauses


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageOptions:
    """Where the shards of a dataset are kept while they are read."""

    cache_dir: Path | None = None
    """For shards of a remote dataset; by default $SLURM_TMPDIR, or else the folder for temporary
    files."""

    cache_gb: float = 0.0
    """Most that cached or staged shards take, in 10^9 bytes; zero takes what is free."""

    stage_dir: Path | None = None
    """Local disk onto which the shards of a dataset in a folder are copied as they are read."""

    retry: RetryConfig = field(default_factory=RetryConfig)
    """What is done about a source that fails."""

    def __post_init__(self) -> None:
        require_not_negative(self, "cache_gb")

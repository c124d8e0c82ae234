"""What was found of a machine, and the part that limits the rest."""

from dataclasses import asdict, dataclass, replace

from dinomm_train.doctor.checks import Check


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What each part reaches alone, in samples per second of each rank."""

    disk: float
    """The stream just after the system was asked to forget the shards."""

    reader: float
    """The same samples again, from the system's memory."""

    views: float
    """Network input and crops of a batch."""

    step: float
    """Both networks, loss and optimizer on ready crops."""

    peak_tflops: float
    """10^12 operations per second of the device in large matrix products, or as configured."""

    step_tflops: float
    """The same in the step."""

    @property
    def mfu(self) -> float:
        """Share of that peak that the step reaches."""
        return self.step_tflops / self.peak_tflops

    @property
    def compute(self) -> float:
        """Samples per second of views and step one after the other."""
        return 1 / (1 / self.views + 1 / self.step)

    def shared_by(self, ranks: int, *, has_own_device: bool) -> "Rates":
        """What is left to each of a machine's ranks, where these are rates of the whole machine.

        A rank that has a GPU of its own keeps what was measured on one.
        """
        computing = 1 if has_own_device else ranks
        return replace(
            self,
            disk=self.disk / ranks,
            reader=self.reader / ranks,
            views=self.views / computing,
            step=self.step / computing,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What was found."""

    checks: tuple[Check, ...]

    rates: Rates | None = None
    """None where a check failed, or a GPU has no memory left, so that nothing can be measured."""

    ranks: int = 1
    """Processes of the run."""

    assumed: str = ""
    """What is taken for granted of the run's ranks, in words; empty where there is one."""

    batch: int = 0
    """Samples of the measured steps."""

    fits_in_memory: bool = False
    """Whether the memory that is available holds what an epoch reads: the disk matters but once."""

    @property
    def is_healthy(self) -> bool:
        """Whether every check is good."""
        return all(check.is_good for check in self.checks)

    @property
    def limit(self) -> str:
        """The part that a faster run would have to begin with: disk, reader, views or step."""
        if self.rates is None:
            return ""
        if self._stream(self.rates) < self.rates.compute:
            return "reader" if self.fits_in_memory else "disk"
        return "views" if self.rates.views < self.rates.step else "step"

    @property
    def run_rate(self) -> float:
        """Samples per second that the run would see, over all its ranks."""
        if self.rates is None:
            return 0.0
        return self.ranks * min(self._stream(self.rates), self.rates.compute)

    def _stream(self, rates: Rates) -> float:
        return rates.reader if self.fits_in_memory else rates.disk

    def to_dict(self) -> dict[str, object]:
        """The same in plain values, for scripts."""
        rates = self.rates and asdict(self.rates) | {"mfu": self.rates.mfu}
        return {
            "checks": [asdict(check) for check in self.checks],
            "rates": rates,
            "ranks": self.ranks,
            "run_rate": self.run_rate,
            "assumed": self.assumed,
            "batch": self.batch,
            "fits_in_memory": self.fits_in_memory,
            "limit": self.limit,
        }

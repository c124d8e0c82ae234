"""What a run's stream comes to, stated and checked before the first step."""

from dataclasses import asdict, dataclass, replace

from dinomm_train.data.order import SampleOrder, share_size
from dinomm_train.data.shard_file import ShardStore
from dinomm_train.data.shard_plan import peak_bytes
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamTerms:
    """Arithmetic of samples, steps and ranks, and what a cache must hold."""

    samples: int
    """Samples of an epoch's order."""

    steps_per_epoch: int
    """Steps of every rank in an epoch."""

    global_batch: int
    """Samples of a step over all ranks."""

    ranks: int
    """Processes that share a step."""

    share: int
    """Samples of a step that each rank reads."""

    dropped_per_epoch: int
    """Samples at the end of an epoch's order that fill no step."""

    shards: int
    """Shards that hold the samples; they need not be as many as ranks or threads."""

    block_shards: int
    """Shards that are mixed at a time; zero where all are."""

    bytes_per_epoch: int
    """Bytes of stored arrays that an epoch reads."""

    cache_bytes: int
    """Bytes of shards that are needed at once; nothing to a dataset that is read where it lies."""

    @classmethod
    def of(
        cls, split: StoredSplit, order: SampleOrder, *, world: int, epochs: int
    ) -> "StreamTerms":
        """The terms of a run.

        Raises:
            TrainError: the ranks cannot share a batch evenly.
        """
        sample_bytes = sum(stored.sample_bytes for stored in split.arrays.values())
        steps = order.steps_per_epoch
        return cls(
            samples=len(order.shard_of),
            steps_per_epoch=steps,
            global_batch=order.global_batch,
            ranks=world,
            share=share_size(order.global_batch, world),
            dropped_per_epoch=order.dropped_per_epoch,
            shards=int(order.shard_of.max()) + 1,
            block_shards=order.block_shards,
            bytes_per_epoch=steps * order.global_batch * sample_bytes,
            cache_bytes=peak_bytes(split.shards, order, epochs),
        )

    def lines(self) -> tuple[str, ...]:
        """The same in words."""
        mixed = (
            f"{self.block_shards:,} of {self.shards:,} shards at a time, about "
            f"{self.samples * min(self.block_shards, self.shards) // self.shards:,} samples"
            if self.block_shards
            else f"all {self.shards:,} shards together"
        )
        return (
            f"an epoch is {self.steps_per_epoch:,} steps of {self.global_batch:,} samples, "
            f"{self.share:,} on each of {self.ranks:,} process(es), the same number of steps on "
            f"each; it reads {_gigabytes(self.bytes_per_epoch)}",
            f"of {self.samples:,} samples the last {self.dropped_per_epoch:,} of an epoch's order "
            "fill no step and are left out of that epoch, others each time; none comes twice",
            f"samples are shuffled anew each epoch over {mixed}",
        )

    def to_dict(self) -> dict[str, int]:
        """The same in plain values, for scripts."""
        return asdict(self)


def require_room(split: StoredSplit, order: SampleOrder, terms: StreamTerms, *, epochs: int) -> str:
    """What the cache must hold, in words, if that fits.

    Raises:
        TrainError: it does not; the message says which settings would do.
    """
    room = split.store.room
    if room is None:
        return "no cache is needed: shards are read where they lie"
    if terms.cache_bytes > room:
        raise TrainError(_refusal(split, order, terms, room, epochs))
    whole = (
        "; a full shuffle fetches the whole split in its first epoch, --shuffle block needs less"
    )
    return (
        f"shards of {_gigabytes(terms.cache_bytes)} are needed at once, {split.store.kept_in} has "
        f"room for {_gigabytes(room)}{'' if order.block_shards else whole}"
    )


def require_cache(store: ShardStore, needed: int, who: str) -> None:
    """Return nothing where shards of so many bytes can be held at once.

    Raises:
        TrainError: they cannot; the message says who needs them, and what would do.
    """
    if store.room is not None and needed > store.room:
        raise TrainError(_tell_shortage(who, store, needed))


def _tell_shortage(who: str, store: ShardStore, needed: int) -> str:
    assert store.room is not None
    return (
        f"{who} needs shards of {_gigabytes(needed)} at once, but the cache has room for "
        f"{_gigabytes(store.room)}; give --cache-gb {(needed + store.spare) / 1e9 + 0.0005:.3f}"
    )


def _refusal(
    split: StoredSplit, order: SampleOrder, terms: StreamTerms, room: int, epochs: int
) -> str:
    message = _tell_shortage(
        f"a {'block' if order.block_shards else 'full'} shuffle", split.store, terms.cache_bytes
    )
    fitting = _fitting_block(split, order, room, epochs)
    return message + (f", or --shuffle block --set sampling.block_shards={fitting}" * bool(fitting))


def _fitting_block(split: StoredSplit, order: SampleOrder, room: int, epochs: int) -> int:
    """Shards of the largest block that fits, among powers of two; zero where none does."""
    sizes = (1 << power for power in range(10, -1, -1))
    most = order.block_shards or len(split.shards)
    fitting = (
        size
        for size in sizes
        if size < most
        and peak_bytes(split.shards, replace(order, block_shards=size), epochs) <= room
    )
    return next(fitting, 0)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"

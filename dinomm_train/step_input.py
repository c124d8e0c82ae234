"""What a step learns from: its batch, its views and its scheduled values, all by its number."""

from dinomm_train.config import RunConfig
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.loader import ReadOptions
from dinomm_train.data.order import step_positions
from dinomm_train.data.stream import StoredBatch
from dinomm_train.data.training_stream import open_training_batches
from dinomm_train.data.views import Views, make_views, require_chain
from dinomm_train.distributed import Ranks
from dinomm_train.schedules import StepValues, step_values


class StepInput:
    """The input of one rank's steps; a step's is the same whenever and however often it is made.

    Raises:
        TrainError: the dataset and the configuration do not go together.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        config: RunConfig,
        ranks: Ranks,
        reading: ReadOptions | None = None,
    ) -> None:
        require_chain(dataset.card, config.views)
        self.dataset = dataset
        self.config = config
        self.ranks = ranks
        self.batches = open_training_batches(dataset, config, ranks, reading or ReadOptions())
        self.scaling = InputScaling.of(dataset.card)

    def batch(self, step: int) -> StoredBatch:
        """This rank's share of one step's batch, read on its own."""
        epoch, step_of_epoch = divmod(step, self.batches.steps_per_epoch)
        epoch_batches = self.batches.epoch(epoch, step_of_epoch)
        try:
            return next(epoch_batches)
        finally:
            epoch_batches.close()

    def values(self, step: int) -> StepValues:
        """The step's scheduled values."""
        return step_values(step, self.config, steps_per_epoch=self.batches.steps_per_epoch)

    def views(self, batch: StoredBatch, step: int) -> Views:
        """The crops of the step's batch, on the rank's device."""
        images = to_network_input(batch, self.scaling, self.ranks.device)
        return make_views(images, self._key(batch, step), self.config.views, self.scaling)

    def keys(self, step: int) -> tuple[str, ...]:
        """Keys of the step's samples over all ranks: their parts, one after another."""
        epoch, step_of_epoch = divmod(step, self.batches.steps_per_epoch)
        order = self.batches.order
        split = self.dataset.split("train")
        positions = step_positions(order.epoch(epoch), step_of_epoch, order.global_batch)
        return tuple(split.key(int(position)) for position in positions)

    def _key(self, batch: StoredBatch, step: int) -> ViewKey:
        return ViewKey(
            seed=self.config.sampling.seed,
            epoch=step // self.batches.steps_per_epoch,
            sample_ids=batch.sample_ids,
        )

"""What can go wrong in training and evaluation, in words a user can act on."""


class TrainError(Exception):
    """The dataset, checkpoint or run is at fault; the message says what, where and what to do."""

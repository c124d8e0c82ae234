"""What can go wrong in training and evaluation, in words a user can act on."""


class TrainError(Exception):
    """The dataset, checkpoint or run is at fault; the message says what, where and what to do."""


def first_line(error: BaseException) -> str:
    """What an error says, cut to its first line; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]

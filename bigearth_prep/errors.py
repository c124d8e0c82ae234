"""What can go wrong in preparation, in words a user can act on."""


class PrepError(Exception):
    """The data or the request is at fault; the message says what, where, and what to do next."""

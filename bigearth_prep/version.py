"""The version of the distribution: of both packages and both commands."""

__version__ = "0.1.0"

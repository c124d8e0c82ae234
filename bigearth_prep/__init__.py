"""From BigEarthNet archives to paired, aligned, normalized training shards."""

from typing import TYPE_CHECKING, Any

from bigearth_prep.version import __version__

if TYPE_CHECKING:
    from bigearth_prep.dataset import open_dataset

__all__ = ["__version__", "open_dataset"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the module holds)
    """`open_dataset`, imported when it is first asked for: command lines must start fast."""
    if name == "open_dataset":
        from bigearth_prep.dataset import open_dataset

        return open_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

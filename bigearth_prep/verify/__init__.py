"""A dataset against its card, its manifest and, on request, the archive it was made from."""

from bigearth_prep.verify.config import VerifyConfig
from bigearth_prep.verify.dataset import shard_count, verify_dataset

__all__ = ["VerifyConfig", "shard_count", "verify_dataset"]

"""From shards on disk to the crops of one training step."""

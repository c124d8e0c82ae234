"""What a machine can reach with a dataset and a configuration, measured."""

"""Does a checkpoint help: frozen features, protocols, scores and the table of them."""

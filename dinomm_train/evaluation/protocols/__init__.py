"""How features and labels become class probabilities of patches without labels."""

"""What a pretrained network must beat."""

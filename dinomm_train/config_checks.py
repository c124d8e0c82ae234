"""Checks that sections of a configuration make of their fields."""

import math


def require_positive(owner: object, *names: str) -> None:
    """Reject fields that are not finite and above zero.

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        if not 0 < getattr(owner, name) < math.inf:
            raise ValueError(f"{name} must be positive, got {getattr(owner, name)}")


def require_not_negative(owner: object, *names: str) -> None:
    """Reject fields that are not finite or below zero.

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        if not 0 <= getattr(owner, name) < math.inf:
            raise ValueError(f"{name} must not be negative, got {getattr(owner, name)}")


def require_probabilities(owner: object, *names: str) -> None:
    """Reject fields outside [0, 1].

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")

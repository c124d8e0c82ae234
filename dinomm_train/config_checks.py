"""Checks that sections of a configuration make of their fields."""

import math


def require_positive(owner: object, *names: str) -> None:
    """Reject fields that are not finite and above zero, or hold a number that is not.

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        if not all(0 < number < math.inf for number in _numbers(owner, name)):
            raise ValueError(f"{name} must be finite and positive, got {getattr(owner, name)}")


def require_not_negative(owner: object, *names: str) -> None:
    """Reject fields that are not finite or below zero, or hold a number that is.

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        if not all(0 <= number < math.inf for number in _numbers(owner, name)):
            raise ValueError(f"{name} must be finite and not negative, got {getattr(owner, name)}")


def require_probabilities(owner: object, *names: str) -> None:
    """Reject fields outside [0, 1], or that hold a number outside.

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        if not all(0 <= number <= 1 for number in _numbers(owner, name)):
            raise ValueError(f"{name} must lie in [0, 1], got {getattr(owner, name)}")


def require_rising(owner: object, *names: str, most: float = math.inf) -> None:
    """Reject fields that are no range from above zero to at most a bound, and finite.

    Raises:
        ValueError: naming the first such field.
    """
    for name in names:
        low, high = getattr(owner, name)
        if not 0 < low <= high <= most or not math.isfinite(high):
            within = "above 0" if math.isinf(most) else f"within (0, {most:g}]"
            raise ValueError(f"{name} must rise {within}, got {low} to {high}")


def _numbers(owner: object, name: str) -> tuple[int | float, ...]:
    value = getattr(owner, name)
    return value if isinstance(value, tuple) else (value,)

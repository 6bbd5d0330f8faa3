"""Step-size schedules: functions of the iteration that multiply a base step."""

from __future__ import annotations


def published_decay(iteration: int, rate: float = 1e-2, power: float = 0.75) -> float:
    """(1 + λ t)^−0.75 with λ = 10⁻², the schedule of Punjani & Brubaker for SGD and its relatives."""
    return float((1 + rate * iteration) ** -power)

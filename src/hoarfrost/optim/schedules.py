"""Schedules: functions of the iteration that multiply a base step, or set the momentum."""

import math

LARGEST_MOMENTUM = 0.9


def published_decay(iteration: int, rate: float = 1e-2, power: float = 0.75) -> float:
    """(1 + λ t)^−0.75 with λ = 10⁻², the schedule of Punjani & Brubaker for SGD and its relatives."""
    return float((1 + rate * iteration) ** -power)


def published_momentum(iteration: int) -> float:
    """min{0.9, 1 − 2^(−1 − log₂(⌊t/100⌋ + 1))}: 0.5, 0.75, 0.83, 0.875, then 0.9, changing every 100 iterations."""
    return min(LARGEST_MOMENTUM, 1 - 2 ** (-1 - math.log2(iteration // 100 + 1)))


def settling(iteration: int, first: float = 0.3, hold: int = 120, scale: float = 10.0, power: float = 0.75) -> float:
    """A step held at `first` for `hold` iterations, then (1 + (t − hold) / scale)^−power of it."""
    return float(first * (1 + max(0, iteration - hold) / scale) ** -power)

"""Estimates of time, in words."""

import math
from collections.abc import Callable


def about(seconds: float) -> str:
    """Seconds in as many digits as an estimate is worth, like "about 3 min"."""
    if seconds < 90:
        return f"about {10 * max(1, round(seconds / 10))} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def between(least_s: float, most_s: float) -> str:
    """A range of seconds, made wider to round numbers, like "2 to 5 min", "50 s to 2 min" or "up to 10 s"."""
    least, least_unit = _rounded(least_s, math.floor)
    most, most_unit = _rounded(most_s, math.ceil)
    if float(least) == 0:
        return f"up to {most} {most_unit}"
    return (
        f"{least} to {most} {most_unit}" if least_unit == most_unit else f"{least} {least_unit} to {most} {most_unit}"
    )


def _rounded(seconds: float, whole: Callable[[float], int]) -> tuple[str, str]:
    """So many tens of seconds, minutes or tenths of hours, as `whole` makes them whole, and the unit."""
    if seconds <= 90:
        return f"{10 * whole(seconds / 10)}", "s"
    minutes = whole(seconds / 60)
    return (f"{minutes}", "min") if minutes <= 90 else (f"{whole(seconds / 360) / 10:.1f}", "h")

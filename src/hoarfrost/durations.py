"""Estimates of time, in words."""


def about(seconds: float) -> str:
    """Seconds in as many digits as an estimate is worth, like "about 3 min"."""
    if seconds < 90:
        return f"about {10 * max(1, round(seconds / 10))} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"

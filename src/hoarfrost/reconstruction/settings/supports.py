"""How wide the supports of maps are, as shares of the box."""

# Of a particle whose images do not tell its diameter; and the most that is taken from them.
DEFAULT_DIAMETER = 0.85
# Diameters of refined maps' support, in that of the particle: a first map loses the tips of a long one.
ROOM_OF_SUPPORT = 1.1


def refined_share(diameter: float) -> float:
    """The width of refined maps of a particle of that diameter."""
    return min(1.0, ROOM_OF_SUPPORT * diameter)


def widest_share(diameter: float) -> float:
    """The width of the widest maps that are solved for: those of halves at the end have solvent around the particle."""
    return max(DEFAULT_DIAMETER, refined_share(diameter))

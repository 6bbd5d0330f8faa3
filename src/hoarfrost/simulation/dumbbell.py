"""A drawn density with a strong cylindrical shape: a dumbbell with stalks, as in the published synthetic study."""

import torch
from torch import Tensor

# In fractions of the box, x along the bar. No two stalks are alike, so nothing is symmetric.
BAR = ((-0.22, 0.0, 0.0), (0.22, 0.0, 0.0), 0.055)
BALLS = (((-0.22, 0.0, 0.0), 0.12), ((0.22, 0.0, 0.0), 0.10))
STALKS = (
    ((-0.22, 0.0, 0.0), (-0.22, 0.20, 0.04), 0.030),
    ((-0.10, 0.0, 0.0), (-0.10, -0.12, 0.12), 0.028),
    ((0.08, 0.0, 0.0), (0.10, 0.05, -0.20), 0.030),
    ((0.22, 0.0, 0.0), (0.28, -0.18, 0.03), 0.028),
)
EDGE = 0.012


def make_dumbbell(box: int) -> Tensor:
    """Two balls on a bar, with four stalks: float32 (box, box, box), 1 inside, soft over 1.2 % of the box."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1)
    volume = torch.zeros(box, box, box, dtype=torch.float64)
    for start, end, radius in (BAR, *STALKS, *((centre, centre, radius) for centre, radius in BALLS)):
        distance = _distance_to_segment(points, start, end)
        volume = torch.maximum(volume, ((radius - distance) / EDGE + 0.5).clamp(0, 1))
    return volume.to(torch.float32)


def _distance_to_segment(points: Tensor, start: tuple[float, ...], end: tuple[float, ...]) -> Tensor:
    a, b = torch.tensor(start, dtype=torch.float64), torch.tensor(end, dtype=torch.float64)
    along = b - a
    nearest = ((points - a) @ along / along.square().sum().clamp(min=1e-12)).clamp(0, 1)
    distance: Tensor = (points - a - nearest[..., None] * along).norm(dim=-1)
    return distance

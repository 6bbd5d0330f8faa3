"""Point groups, and the average over a group of a field on a cubic grid: the projection onto symmetric maps.

A map V has the symmetry of a group G of rotations where V(g x) = V(x) for each g in G. The average

    (S f)(x) = 1/|G| Σ_g f(gᵀ x)

projects onto such maps, orthogonally. For a symmetric V and S applied to b and to the kernel of T, the normal operator,
Vᵀ T V − 2 bᵀ V stays what it is: with both averaged, the M-step's least squares are those under the constraint.

Some rotations take the voxel grid to itself: all of D2, D4, T and O do. With H those in G, and G = ∪ c H, the sum over
H comes first, and leaves one interpolation for each coset c but the first: 6 for D7, 4 for I (`field_average`).
"""

import re
from functools import cached_property

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.maths.fourier import centred_window, even_of_half, half_of_even, radius_grid
from hoarfrost.symmetry.field_average import (
    MARGIN_VOXELS,
    are_about_z,
    permuted_sum,
    summed_about_z,
    summed_anywhere,
)

LARGEST_FOLD = 99
EXACT = 1e-9
# Rotations no further apart, in the norm of their difference, are one.
SAME = 1e-6


class PointGroup:
    """The rotations of a point group in Schönflies notation: Cn, Dn (n from 1 to 99), T, O or I.

    `name` is in capitals, `rotations` (order, 3, 3) float64, identity first. Axes are SciPy's: the main axis of Cn
    and Dn on z, a two-fold axis of Dn on x, two-fold axes of T and I and four-fold axes of O on x, y and z.

    Raises UsageError for any other name.
    """

    def __init__(self, name: str = "C1") -> None:
        self.name = name.strip().upper()
        fold = re.fullmatch(r"[CD]([1-9][0-9]?)", self.name)
        if fold is None and self.name not in ("T", "O", "I"):
            raise UsageError(
                f"symmetry must be Cn or Dn with n from 1 to {LARGEST_FOLD}, T, O or I (like C4, D7), found {name!r}"
            )
        group = Rotation.create_group(self.name)
        matrices = torch.from_numpy(group[group.magnitude().argsort(kind="stable")].as_matrix())
        whole = matrices.round()
        self.rotations = torch.where((matrices - whole).abs() < EXACT, whole, matrices)

    @property
    def order(self) -> int:
        """The number of rotations, |G|."""
        return len(self.rotations)

    @cached_property
    def permutations(self) -> Tensor:
        """H, the rotations that take the grid of voxels to itself: (h, 3, 3)."""
        return self.rotations[(self.rotations == self.rotations.round()).all(dim=2).all(dim=1)]

    @property
    def permutes_axes(self) -> bool:
        """Whether every rotation takes the grid of voxels to itself, so that sums over poses need an nth of them."""
        return self.order == len(self.permutations)

    @property
    def room(self) -> float:
        """Sides of a volume over which a field has to be known for its average to be right within the volume."""
        return 1.0 if self.permutes_axes else 1.5 if are_about_z(self.cosets) else 2.0

    @cached_property
    def cosets(self) -> Tensor:
        """c, one rotation of each coset c H, identity first: (order / h, 3, 3)."""
        return _cosets(self.rotations, self.permutations)

    @cached_property
    def permuting_steps(self) -> list[Tensor]:
        """Sums that make up the one over H, one after the other: 5 copies of a field are added under O, not 23.

        Each is over the cosets of a subgroup in a larger one, from the identity to H.
        """
        steps, known = [], self.rotations[:1]
        while len(known) < len(self.permutations):
            others = self.permutations[~_holds(known, self.permutations)]
            larger = min((_generated(known, other) for other in others), key=len)
            steps.append(_cosets(larger, known))
            known = larger
        return steps

    def __call__(self, volume: Tensor) -> Tensor:
        """S V of a real volume (n, n, n), zero beyond n // 2 voxels from the origin."""
        if self.order == 1:
            return volume
        n = volume.shape[-1]
        return centred_window(self.average(centred_window(volume, 2 * n), n / 2), n).contiguous()

    def average(self, field: Tensor, radius: float, *, is_even: bool = False) -> Tensor:
        """S f of a real field (n, n, n) up to `radius` voxels from the origin, n / 2 at most, and zero beyond.

        Right for fields without content at the grid's Nyquist frequency, to 1e-3 of their norm; what lies beyond 85 %
        of n / 2 is faded out, unless all rotations are permutations. Of a field that `is_even`, n even, half of the
        planes are summed where no turn mixes them.
        """
        if self.order == 1:
            return field
        n = field.shape[-1]
        for turns in self.permuting_steps:
            field = permuted_sum(field, turns)
        if not self.permutes_axes:
            radius = min(radius, n / 2 - MARGIN_VOXELS)
            turns = self.cosets[1:]
            if not are_about_z(turns):
                field = summed_anywhere(field, turns, radius)
            elif is_even:
                field = even_of_half(summed_about_z(half_of_even(field), turns, radius))
            else:
                field = summed_about_z(field, turns, radius)
        return field * ((radius_grid(n, 3, field.device) <= radius) / self.order)

    def nearest(self, turns: Tensor) -> Tensor:
        """Of the equivalents t g of rotations t (…, 3, 3), those by the smallest angle: (…, 3, 3).

        A pose R and the pose R g show a symmetric map alike, so R₁ᵀ R₂ is as good as R₁ᵀ R₂ g.
        """
        if self.order == 1:
            return turns
        group = self.rotations.to(turns)
        # trace(t g) = Σ t_xy g_yx
        traces = turns.flatten(-2) @ group.transpose(1, 2).flatten(1).T
        return turns @ group[traces.argmax(dim=-1)]


def _holds(rotations: Tensor, others: Tensor) -> Tensor:
    """Which of the others (m, 3, 3) are among the rotations (k, 3, 3): (m,) bool."""
    return torch.cdist(others.flatten(1), rotations.flatten(1)).amin(dim=1) <= SAME


def _cosets(group: Tensor, subgroup: Tensor) -> Tensor:
    """c, one rotation of each coset c H of a subgroup H (h, 3, 3), identity first: (order / h, 3, 3)."""
    found = group[:1]
    for rotation in group:
        # rotation = c h has h = cᵀ rotation.
        if not _holds(subgroup, found.transpose(1, 2) @ rotation).any():
            found = torch.cat([found, rotation.unsqueeze(0)])
    return found


def _generated(subgroup: Tensor, rotation: Tensor) -> Tensor:
    """The smallest group of permutations with a subgroup (h, 3, 3) and a rotation (3, 3), identity first."""
    found = torch.cat([subgroup, rotation.unsqueeze(0)])
    while True:
        products = (found[:, None] @ found).flatten(0, 1).flatten(1)
        # In descending order the identity is the first.
        grown: Tensor = torch.unique(products, dim=0).flip(0).view(-1, 3, 3)
        if len(grown) == len(found):
            return grown
        found = grown

"""The statistics of the M-step summed over poses that no two images share, spread straight onto the grid."""

import math

import torch
from scipy.fft import next_fast_len

from hoarfrost.maths.fourier import centred_window
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.kernels import PoseKernels, kernels_for
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.slices.operator import AdjointGrid
from hoarfrost.nufft.torch import WindowTaps
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid
from hoarfrost.parallel.threads import wide
from hoarfrost.symmetry.field_average import FLAT
from hoarfrost.symmetry.point_group import PointGroup

# Three taps on a grid little finer than the kernel needs: memory is a quarter of that with two taps on a grid of twice
# as many points an axis, which is less accurate.
KERNEL_WIDTH = 3
LEAST_OVERSAMPLING = 1.25
BETA = 5.2


def statistics_box(box: int) -> int:
    """Points along a side of the grid that the statistics of a volume of `box` voxels are summed on: FFTs are fast."""
    return int(next_fast_len(math.ceil(2 * LEAST_OVERSAMPLING * box)))


def middle_of(box: int, share: float, group: PointGroup | None = None) -> int:
    """Voxels along a side of the middle of a volume of `box` voxels that holds a ball as wide as a `share` of it.

    An even number. Where an average over the `group` interpolates, there is room for what it fades at the faces.
    """
    if group is not None and not group.permutes_axes:
        share /= FLAT
    return min(box, 2 * (math.floor(share * box / 2) + 1))


class LocalStatistics:
    """Σ Pᵀ γ c S* y and the kernel of Σ Pᵀ γ c² P, for a volume of `box` voxels over the length of the images.

    Both averaged over `group`, as the adjoints of `SliceOperator` are. `kernels` are those for the device unless given.
    A map that is empty outside a ball needs both in the `middle` of the box only, so many voxels wide (`middle_of`):
    the grid is coarser then, with the same error.
    """

    def __init__(
        self,
        box: int,
        image_box: int,
        device: torch.device | str = "cpu",
        group: PointGroup | None = None,
        kernels: PoseKernels | None = None,
        middle: int | None = None,
    ) -> None:
        self._box, middle = box, middle or box
        side = statistics_box(middle)
        window = KaiserBessel(KERNEL_WIDTH, side / (2 * middle), BETA)
        self._grid = AdjointGrid(middle, image_box, window, group=group, device=device, dtype=torch.float32)
        self._taps = WindowTaps(WindowedGrid(side, side / box, window), device=device)
        size = side**3
        self._data = torch.zeros(size, dtype=torch.complex64, device=device)
        self._weight = torch.zeros(size, device=device)
        self._kernels = kernels or kernels_for(self._weight)

    def add(self, model: LocalModel, images: WhitenedImages, draws: Draws) -> None:
        """Add poses drawn from the posteriors of images."""
        self._kernels.spread(self._taps, model.frequencies, images, draws, (self._data, self._weight))

    def quadratic(self, n_images: float) -> Quadratic:
        """b (box,)³, zero but in the middle, and kernel of T (2 middle,)³ per image; to be asked for once.

        As `BandModel.quadratic`. Its grids are freed on the way, as they are large for a fine map.
        """
        with wide(len(self._weight)):
            linear = centred_window(self._grid.volume(self._data), self._box) / n_images
            del self._data
            kernel = self._grid.kernel(self._weight) / n_images
            del self._weight
            return Quadratic(linear, kernel)

"""The statistics of the M-step summed over poses that no two images share, spread straight onto the grid."""

import torch

from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.kernels import PoseKernels, kernels_for
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.slices.operator import AdjointGrid
from hoarfrost.nufft.torch import WindowTaps
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid
from hoarfrost.symmetry.point_group import PointGroup

# Two taps with this shape are accurate enough for volumes inside 85 % of the box; Beatty's shape is not.
KERNEL_WIDTH = 2
OVERSAMPLING = 2
BETA = 5.6


class LocalStatistics:
    """Σ Pᵀ γ c S* y and the kernel of Σ Pᵀ γ c² P, for a volume of `box` voxels over the length of the images.

    Both averaged over `group`, as the adjoints of `SliceOperator` are. `kernels` are those for the device unless given.
    """

    def __init__(
        self,
        box: int,
        image_box: int,
        device: torch.device | str = "cpu",
        group: PointGroup | None = None,
        kernels: PoseKernels | None = None,
    ) -> None:
        window = KaiserBessel(KERNEL_WIDTH, OVERSAMPLING, BETA)
        self._grid = AdjointGrid(box, image_box, window, group=group, device=device, dtype=torch.float32)
        side = self._grid.grid_box
        self._taps = WindowTaps(WindowedGrid(side, side / box, window), device=device)
        size = side**3
        self._data = torch.zeros(size, dtype=torch.complex64, device=device)
        self._weight = torch.zeros(size, device=device)
        self._kernels = kernels or kernels_for(self._weight)

    def add(self, model: LocalModel, images: WhitenedImages, draws: Draws) -> None:
        """Add poses drawn from the posteriors of images."""
        self._kernels.spread(self._taps, model.frequencies, images, draws, (self._data, self._weight))

    def quadratic(self, n_images: float) -> Quadratic:
        """b (box,)³ and kernel of T (2 box,)³ per image, as `BandModel.quadratic`; to be asked for once.

        Its grids are freed on the way, as they are large for a fine map.
        """
        linear = self._grid.volume(self._data) / n_images
        del self._data
        kernel = self._grid.kernel(self._weight) / n_images
        del self._weight
        return Quadratic(linear, kernel)

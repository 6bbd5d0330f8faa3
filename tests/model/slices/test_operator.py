"""The slice operator against a direct Fourier sum, its adjoint, and its normal operator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.rotations import plane_symmetries, random_rotations, rotations_about_z
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.slices import cpu
from hoarfrost.model.slices import torch as by_torch
from hoarfrost.model.slices.operator import SliceOperator, apply_normal, transform_normal_kernel
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid

GENERATOR_NAME = "slices test"


def random_volume(box: int, seed: int = 0) -> Tensor:
    return torch.randn(box, box, box, generator=named_generator(seed, GENERATOR_NAME), dtype=torch.float64)


def random_slices(operator: SliceOperator, seed: int = 1) -> Tensor:
    shape = (operator.n_slices, operator.disc.size)
    return torch.randn(shape, generator=named_generator(seed, GENERATOR_NAME), dtype=torch.complex128)


def make_operator(
    image_box: int, r_max: float, box: int, n: int = 4, kernel_width: int = 4, oversampling: int = 2
) -> SliceOperator:
    rotations = random_rotations(n, named_generator(2, GENERATOR_NAME))
    disc = FourierDisc(image_box, r_max)
    return SliceOperator(
        disc, box, rotations, kernel_width=kernel_width, oversampling=oversampling, dtype=torch.float64
    )


def direct_slices(volume: Tensor, disc: FourierDisc, rotations: Tensor) -> Tensor:
    """V̂(Rᵀ(kx, ky, 0)) / N as a sum over every voxel."""
    box = volume.shape[-1]
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    plane = torch.nn.functional.pad(disc.coordinates.double(), (0, 1))
    points = plane @ rotations  # rows kᵀ R = (Rᵀ k)ᵀ
    return torch.exp(-2j * math.pi / box * (points @ places.T)) @ (volume.reshape(-1) + 0j) / disc.box


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


GRIDS = [(16, 5.0, 16), (32, 6.0, 18), (64, 3.7, 11), (15, 7.2, 15), (24, 9.5, 20)]


@pytest.mark.parametrize(("image_box", "r_max", "box"), GRIDS)
@pytest.mark.parametrize("kernel_width", [2, 3, 4, 5, 6])
def test_the_adjoint_is_the_adjoint(image_box: int, r_max: float, box: int, kernel_width: int) -> None:
    operator = make_operator(image_box, r_max, box, kernel_width=kernel_width)
    volume, slices = random_volume(box), random_slices(operator)
    forward = operator.slices(volume)
    left = (slices.conj() * forward).real.sum()
    right = (operator.adjoint(slices) * volume).sum()
    assert abs(float(left - right)) < 1e-10 * float(forward.norm() * slices.norm())


@pytest.mark.parametrize("image_box", [16, 17])
def test_slicing_is_linear_and_real_volumes_have_a_real_mean(image_box: int) -> None:
    operator = make_operator(image_box, 4.0, 12)
    a, b = random_volume(12, 3), random_volume(12, 4)
    both = operator.slices(2 * a - 3 * b)
    torch.testing.assert_close(both, 2 * operator.slices(a) - 3 * operator.slices(b))
    # On a grid point a window of even width sees one neighbour more on one side than on the other.
    assert float(both[:, 0].imag.abs().max()) < 1e-3 * float(both.abs().square().mean().sqrt())


# The relative rms error that each width promises on white noise that fills the box, the worst case.
PROMISED = {2: 1e-1, 3: 1e-2, 4: 1e-3, 6: 1e-5}


@pytest.mark.parametrize("kernel_width", sorted(PROMISED))
@pytest.mark.parametrize(("image_box", "r_max", "box"), GRIDS)
def test_slices_are_the_fourier_sum(kernel_width: int, image_box: int, r_max: float, box: int) -> None:
    operator = make_operator(image_box, r_max, box, n=6, kernel_width=kernel_width)
    rotations = random_rotations(6, named_generator(2, GENERATOR_NAME))
    volume = random_volume(box)
    exact = direct_slices(volume, operator.disc, rotations)
    assert relative_error(operator.slices(volume), exact) < PROMISED[kernel_width]


def test_single_precision_is_as_accurate_as_the_window() -> None:
    disc, rotations = FourierDisc(32, 6.0), random_rotations(6, named_generator(2, GENERATOR_NAME))
    operator = SliceOperator(disc, 18, rotations, kernel_width=4)
    volume = random_volume(18)
    found = operator.slices(volume.float())
    assert found.dtype == torch.complex64
    assert relative_error(found, direct_slices(volume, disc, rotations)) < PROMISED[4]


def axis_rotations() -> dict[str, tuple[Tensor, tuple[int, ...], tuple[int, ...]]]:
    """R, and the permutation of the volume's axes and the flips that turn it by R, for an odd box."""
    return {
        "identity": (torch.eye(3).double(), (0, 1, 2), ()),
        # x → y, y → −x: what stood at (x, y) stands at (−y, x).
        "quarter turn about z": (rotations_about_z(torch.tensor([math.pi / 2]).double())[0], (0, 2, 1), (2,)),
        # x → y → z → x
        "cycle of the axes": (torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]).double(), (1, 2, 0), ()),
        # half a turn about x
        "flip": (plane_symmetries()[4], (0, 1, 2), (0, 1)),
    }


@pytest.mark.parametrize("name", axis_rotations())
@pytest.mark.parametrize(("kernel_width", "error"), [(3, 1e-2), (4, 2e-3), (6, 2e-5)])
def test_a_slice_is_the_transform_of_the_projection(name: str, kernel_width: int, error: float) -> None:
    rotation, order, flips = axis_rotations()[name]
    box = 17
    disc = FourierDisc(box, 7.5)
    volume = random_volume(box)
    turned = volume.permute(order).flip(flips)
    expected = disc.pack(turned.sum(0))
    operator = SliceOperator(disc, box, rotation[None], kernel_width=kernel_width, dtype=torch.float64)
    assert relative_error(operator.slices(volume)[0], expected) < error


def test_a_volume_in_a_small_box_has_the_slices_of_the_same_volume_in_the_images_box() -> None:
    disc, rotations = FourierDisc(32, 5.0), random_rotations(5, named_generator(3, GENERATOR_NAME))
    # A smooth blob well inside the box, so that neither box cuts anything off.
    axis = torch.arange(32, dtype=torch.float64) - 16
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    large = torch.exp(-((x - 3) ** 2 + (y + 2) ** 2 + (z - 1) ** 2) / 25)
    small = fourier_resize(large, 16)
    wide = SliceOperator(disc, 32, rotations, kernel_width=6, dtype=torch.float64)
    narrow = SliceOperator(disc, 16, rotations, kernel_width=6, dtype=torch.float64)
    # fourier_resize keeps V̂(k), so the slices agree without a factor.
    assert relative_error(narrow.slices(small), wide.slices(large)) < 1e-3


@pytest.mark.parametrize(("kernel_width", "error"), [(3, 1e-2), (4, 1e-3), (6, 1e-5)])
@pytest.mark.parametrize(("image_box", "r_max", "box"), GRIDS[:3])
def test_the_normal_operator_is_a_convolution(
    kernel_width: int, error: float, image_box: int, r_max: float, box: int
) -> None:
    operator = make_operator(image_box, r_max, box, n=40, kernel_width=kernel_width)
    shape = (operator.n_slices, operator.disc.size)
    weights = torch.rand(shape, generator=named_generator(5, GENERATOR_NAME), dtype=torch.float64)
    volume = random_volume(box)
    expected = operator.adjoint(weights * operator.slices(volume))
    found = apply_normal(transform_normal_kernel(operator.normal_kernel(weights)), volume)
    assert relative_error(found, expected) < error


def test_the_normal_kernel_is_a_sum_of_cosines() -> None:
    operator = make_operator(16, 4.0, 12, n=3, kernel_width=6)
    weights = torch.rand(3, operator.disc.size, generator=named_generator(5, GENERATOR_NAME), dtype=torch.float64)
    rotations = random_rotations(3, named_generator(2, GENERATOR_NAME))
    points = (torch.nn.functional.pad(operator.disc.coordinates.double(), (0, 1)) @ rotations).reshape(-1, 3)
    axis = torch.arange(24, dtype=torch.float64) - 12
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    exact = torch.cos(2 * math.pi / 12 * (places @ points.T)) @ weights.reshape(-1) / 16**2
    kernel = operator.normal_kernel(weights)
    assert kernel.shape == (24, 24, 24)
    # The corner at −box is outside of what a convolution of two boxes reaches.
    reached = (slice(1, None),) * 3
    assert relative_error(kernel[reached], exact.reshape(24, 24, 24)[reached]) < 1e-5


def test_the_normal_operator_is_symmetric_and_positive() -> None:
    operator = make_operator(32, 6.0, 18, n=40)
    weights = torch.rand(40, operator.disc.size, generator=named_generator(5, GENERATOR_NAME), dtype=torch.float64)
    spectrum = transform_normal_kernel(operator.normal_kernel(weights))
    a, b = random_volume(18, 6), random_volume(18, 7)
    normal_a, normal_b = apply_normal(spectrum, a), apply_normal(spectrum, b)
    assert abs(float((b * normal_a).sum() - (a * normal_b).sum())) < 1e-12 * float(normal_a.norm() * b.norm())
    assert float((a * normal_a).sum()) > 0


@pytest.mark.parametrize("box", [12, 8])
def test_a_box_too_small_for_the_band_is_refused(box: int) -> None:
    with pytest.raises(ValueError, match="cannot hold frequencies up to r_max 6"):
        SliceOperator(FourierDisc(32, 6.0), box, torch.eye(3)[None])


@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_the_windows_transform_is_its_integral(width: int) -> None:
    window = KaiserBessel(width, 2)
    n = 200_001
    offset = torch.linspace(-width / 2, width / 2, n, dtype=torch.float64)
    values = window(offset)
    for frequency in (0.0, 0.1, 0.25, 0.6, 1.3):
        integral = torch.trapezoid(values * torch.cos(2 * math.pi * frequency * offset), offset)
        found = window.transform(torch.tensor([frequency], dtype=torch.float64))[0]
        torch.testing.assert_close(found, integral, atol=1e-6, rtol=1e-5)
    assert float(window(torch.tensor([width / 2 + 0.01], dtype=torch.float64))[0]) == pytest.approx(1 / width)


class Sums:
    """Compiled sums and those of torch in double precision on one grid, and something to sum."""

    def __init__(self, r_max: float, width: int) -> None:
        generator = named_generator(8, GENERATOR_NAME)
        disc, rotations = FourierDisc(32, r_max), random_rotations(150, generator)
        given = disc, rotations, WindowedGrid(4 * GRID_OF, 4.0, KaiserBessel(width, 2))
        self.compiled = cpu.SliceSums(*given, torch.zeros(1))
        self.torch = by_torch.SliceSums(*given, torch.zeros(1, dtype=torch.float64))
        self.grid = torch.randn((4 * GRID_OF) ** 3, 2, generator=generator)
        self.values = torch.randn(150, disc.size, 2, generator=generator)
        self.weights = torch.rand(150, disc.size, generator=generator)


# Voxels of the volume whose grid these sums are on.
GRID_OF = 18


@pytest.mark.parametrize(("r_max", "width"), [(6.0, 3), (6.3, 4), (8.4, 2), (7.9, 6)])
def test_compiled_sums_are_those_of_torch(r_max: float, width: int) -> None:
    sums = Sums(r_max, width)
    expected = sums.torch.interpolate(sums.grid.double())
    assert relative_error(sums.compiled.interpolate(sums.grid), expected) < 5e-5
    both = sums.torch.spread(sums.values.double(), sums.weights.double())
    for mask in ((True, True), (True, False), (False, True)):
        given = (part if asked else None for part, asked in zip((sums.values, sums.weights), mask, strict=True))
        for found, expected_sum, asked in zip(sums.compiled.spread(*given), both, mask, strict=True):
            assert (found is not None) == asked
            assert found is None or relative_error(found, expected_sum) < 5e-5


def test_what_is_spread_is_the_transpose_and_does_not_depend_on_the_number_of_threads() -> None:
    sums = Sums(6.0, 3)
    found, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            found.append((sums.compiled.interpolate(sums.grid), *sums.compiled.spread(sums.values, sums.weights)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    forward, spread, _ = found[0]
    left, right = (sums.values.double() * forward).sum(), (spread.double() * sums.grid).sum()
    assert abs(float(left - right)) < 1e-6 * float(forward.norm() * sums.values.norm())


def test_windows_that_reach_beyond_the_grid_are_left_to_torch() -> None:
    grid = WindowedGrid(4 * GRID_OF, 4.0, KaiserBessel(6, 2))
    assert grid.holds(8.0)
    assert not grid.holds(8.9)
    rotations, volume = random_rotations(6, named_generator(2, GENERATOR_NAME)), random_volume(18)
    for r_max, dtype, kernels in (
        (8.0, torch.float32, cpu),
        (8.9, torch.float32, by_torch),
        (8.0, torch.float64, by_torch),
    ):
        operator = SliceOperator(FourierDisc(32, r_max), 18, rotations, kernel_width=6, dtype=dtype)
        assert isinstance(operator._sums, kernels.SliceSums)
        found = operator.slices(volume.to(dtype))
        assert relative_error(found, direct_slices(volume, operator.disc, rotations)) < 1e-4

"""The Fourier disc, centred transforms and resampling."""

from __future__ import annotations

import math

import pytest
import torch

from hoarfrost.maths.fourier import (
    FourierDisc,
    centred_window,
    fft3_centred,
    fourier_crop_images,
    fourier_resize,
    ifft3_centred,
    radius_grid,
    soft_sphere,
)
from hoarfrost.maths.rotations import plane_symmetries


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("box", "r_max"), [(16, 7.9), (16, 5.0), (15, 6.3), (32, 10.24), (8, 1.0)])
def test_unpacking_a_packed_band_limited_image_gives_it_back(box: int, r_max: float) -> None:
    disc = FourierDisc(box, r_max)
    packed = disc.pack(random_images(3, box, box))
    images = disc.unpack(packed)
    assert images.shape == (3, box, box)
    torch.testing.assert_close(disc.pack(images), packed, rtol=0, atol=1e-12)
    torch.testing.assert_close(disc.unpack(disc.pack(images)), images, rtol=0, atol=1e-12)


@pytest.mark.parametrize("box", [9, 12])
def test_packing_is_the_fourier_sum_about_the_centre(box: int) -> None:
    disc = FourierDisc(box, 3.5)
    image = random_images(box, box)
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    for (kx, ky), value in zip(disc.coordinates.tolist(), disc.pack(image), strict=True):
        phase = torch.exp(-2j * math.pi / box * (ky * axis[:, None] + kx * axis[None, :]))
        torch.testing.assert_close(value, (image * phase).sum() / box)


@pytest.mark.parametrize("box", [15, 16])
def test_weighted_coefficients_have_half_the_energy_of_the_pixels(box: int) -> None:
    disc = FourierDisc(box, box / 2 - 0.01)
    images = disc.unpack(disc.pack(random_images(4, box, box)))
    energy = (disc.weights * disc.pack(images).abs().square()).sum(-1)
    torch.testing.assert_close(2 * energy, images.square().sum((-2, -1)))


def test_white_noise_has_its_variance_in_every_coefficient() -> None:
    disc = FourierDisc(32, 15.5)
    power = disc.pack(3 * random_images(2000, 32, 32)).abs().square().mean(0)
    assert float(power.mean()) == pytest.approx(9, rel=0.01)
    assert float((power[1:] / 9 - 1).abs().max()) < 0.15


@pytest.mark.parametrize("box", [16, 17])
def test_the_disc_is_half_of_the_plane_with_dc_first(box: int) -> None:
    disc = FourierDisc(box, 6.4)
    kept = {tuple(pair) for pair in disc.coordinates.tolist()}
    assert disc.coordinates[0].tolist() == [0, 0]
    assert len(kept) == disc.size
    mirrored = {(-x, -y) for x, y in kept}
    assert kept & mirrored == {(0, 0)}
    everything = {(x, y) for x in range(-8, 9) for y in range(-8, 9) if x * x + y * y <= 6.4**2}
    assert kept | mirrored == everything
    assert disc.weights.tolist() == [0.5] + [1.0] * (disc.size - 1)
    torch.testing.assert_close(disc.radii, disc.coordinates.double().norm(dim=-1))


def test_a_band_of_16_percent_of_nyquist_of_128_pixels_has_167_coefficients() -> None:
    assert FourierDisc(128, 10.24).size == 167


@pytest.mark.parametrize("larger", [7.3, 9.0, 11.9])
def test_a_smaller_disc_is_the_start_of_a_larger_one(larger: float) -> None:
    small, large = FourierDisc(24, 5.2), FourierDisc(24, larger)
    assert torch.equal(large.coordinates[: small.size], small.coordinates)
    images = random_images(2, 24, 24)
    torch.testing.assert_close(large.pack(images)[:, : small.size], small.pack(images))


@pytest.mark.parametrize("symmetry", range(8))
def test_a_symmetry_of_the_lattice_permutes_the_disc(symmetry: int) -> None:
    box = 17  # odd: every symmetry maps the pixels to themselves
    disc = FourierDisc(box, 7.5)
    matrix = plane_symmetries()[symmetry, :2, :2]
    image = random_images(box, box)
    axis = torch.arange(box) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    source = torch.stack([x, y], dim=-1).reshape(-1, 2).double() @ matrix.T  # g x
    column, row = (source.round().long() + box // 2).unbind(-1)
    moved = image[row, column].reshape(box, box)  # I(g x) has the transform Ĩ(g k)
    index, conjugate = disc.permutation(matrix)
    permuted = disc.pack(image)[index]
    permuted = torch.where(conjugate, permuted.conj(), permuted)
    torch.testing.assert_close(disc.pack(moved), permuted, rtol=0, atol=1e-12)
    assert sorted(index.tolist()) == list(range(disc.size))


def test_a_quarter_turn_is_numpys() -> None:
    disc = FourierDisc(17, 7.5)
    image = random_images(17, 17)
    turn = plane_symmetries()[1, :2, :2]  # x → y: the image at x is taken from where the turn sends x
    index, conjugate = disc.permutation(turn)
    permuted = disc.pack(image)[index]
    permuted = torch.where(conjugate, permuted.conj(), permuted)
    torch.testing.assert_close(disc.pack(torch.rot90(image, 1, (0, 1))), permuted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("r_max", [0.5, 8.0, 9.0, -1.0])
def test_a_disc_that_reaches_nyquist_or_holds_nothing_is_refused(r_max: float) -> None:
    with pytest.raises(ValueError, match="r_max must lie in"):
        FourierDisc(16, r_max)


@pytest.mark.parametrize("box", [7, 8])
def test_the_centred_3d_transform_is_the_fourier_sum(box: int) -> None:
    volume = random_images(box, box, box)
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    waves = torch.exp(-2j * math.pi / box * torch.outer(axis, axis))
    expected = torch.einsum("zyx,az,by,cx->abc", volume + 0j, waves, waves, waves)
    spectrum = fft3_centred(volume)
    torch.testing.assert_close(spectrum, expected)
    torch.testing.assert_close(ifft3_centred(spectrum).real, volume)


@pytest.mark.parametrize(("small", "large"), [(12, 20), (12, 19), (13, 20), (13, 19)])
def test_resampling_up_and_down_again_changes_nothing(small: int, large: int) -> None:
    volume = fourier_resize(random_images(small, small, small), small)  # band-limited
    up = fourier_resize(volume, large)
    assert up.shape == (large,) * 3
    torch.testing.assert_close(fourier_resize(up, small), volume, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("small", "large"), [(12, 20), (13, 20)])
def test_resampling_keeps_the_fourier_coefficients(small: int, large: int) -> None:
    volume = random_images(small, small, small)
    kept = radius_grid(small, 3) <= 4.2
    resampled = fft3_centred(fourier_resize(volume, large, 4.2))
    torch.testing.assert_close(centred_window(resampled, small)[kept], fft3_centred(volume)[kept])
    beyond = radius_grid(large, 3) > 4.2
    assert float(resampled[beyond].abs().max()) < 1e-10


def test_resampling_keeps_the_number_type() -> None:
    assert fourier_resize(random_images(8, 8, 8).float(), 12).dtype == torch.float32


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("box", [4, 5, 6, 7, 10, 11])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_window_keeps_the_origin(n: int, box: int, dims: int) -> None:
    array = torch.zeros((2, *[n] * dims))
    array[(0, *[n // 2] * dims)] = 1
    window = centred_window(array, box, dims)
    assert window.shape == (2, *[box] * dims)
    assert float(window[(0, *[box // 2] * dims)]) == 1
    assert float(window.sum()) == 1


def test_padding_then_cropping_changes_nothing() -> None:
    array = random_images(5, 5, 5)
    assert torch.equal(centred_window(centred_window(array, 12), 5), array)


def test_a_soft_sphere_is_one_inside_falls_over_the_edge_and_is_zero_outside() -> None:
    radius = radius_grid(20, 3)
    mask = soft_sphere(20, 8, 3)
    assert mask.shape == (20, 20, 20)
    assert mask.dtype == torch.float64
    assert bool((mask[radius <= 4] == 1).all())
    assert float(mask[radius >= 7].abs().max()) < 1e-12
    assert float(mask[10, 10, 15]) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert soft_sphere(20, 8, 3, dims=2).shape == (20, 20)


def test_a_sphere_without_an_edge_is_hard() -> None:
    assert soft_sphere(9, 4, 0).unique().tolist() == [0, 1]


def test_several_volumes_are_resized_each() -> None:
    volumes = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(6))
    resized = fourier_resize(volumes, 12)
    assert resized.shape == (2, 3, 12, 12, 12)
    assert torch.equal(resized[1, 2], fourier_resize(volumes[1, 2], 12))


def waves(box: int, coefficients: dict[tuple[int, int], tuple[float, float]]) -> torch.Tensor:
    """The image (box, box) of a few waves of so many periods over the length, about its centre, index box // 2."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
    terms = (
        amplitude * torch.cos(2 * math.pi * (ky * axis[:, None] + kx * axis[None, :]) + phase)
        for (kx, ky), (amplitude, phase) in coefficients.items()
    )
    return torch.stack(list(terms)).sum(dim=0)


@pytest.mark.parametrize(("box", "small"), [(24, 16), (25, 16), (24, 24), (17, 16), (48, 2), (30, 12)])
def test_a_band_limited_image_keeps_its_values_at_fewer_points(box: int, small: int) -> None:
    generator = torch.Generator().manual_seed(box)
    highest = small // 2 - 1
    numbers = torch.rand(12, 4, generator=generator).tolist()
    drawn = {
        (round((2 * a - 1) * highest), round((2 * b - 1) * highest)): (amplitude, 6 * phase)
        for a, b, amplitude, phase in numbers
    }
    coefficients = {(0, 0): (2.0, 0.0), (highest, highest): (1.0, 0.4), (-highest, highest): (0.5, 2.0), **drawn}
    found = fourier_crop_images(waves(box, coefficients).expand(2, box, box), small)
    torch.testing.assert_close(found, waves(small, coefficients).expand(2, small, small), rtol=0, atol=1e-12)


def test_cropping_keeps_the_mean_and_leaves_out_what_is_finer() -> None:
    images = random_images(3, 20, 20)
    found = fourier_crop_images(images, 12)
    torch.testing.assert_close(found.mean(dim=(1, 2)), images.mean(dim=(1, 2)))
    finer = waves(20, {(7, 0): (1.0, 0.3), (2, -8): (1.0, 1.0), (9, 9): (1.0, 0.0)})
    assert float(fourier_crop_images(finer, 12).abs().max()) < 1e-12
    torch.testing.assert_close(fourier_crop_images(images + finer, 12), found)
    torch.testing.assert_close(fourier_crop_images(images, 20), images)
    # What is kept is what there was: cropped twice is cropped once, but for the Nyquist frequency of the first.
    torch.testing.assert_close(fourier_crop_images(fourier_crop_images(images, 16), 12), found)
    assert fourier_crop_images(images.float(), 12).dtype == torch.float32


def test_the_nyquist_frequency_is_kept_as_relion_has_it() -> None:
    """6 periods in 12 pixels: along x the mean of both signs, half of a wave; along y the positive sign alone."""
    for (kx, ky), kept in {(6, 2): 0.5, (-6, 2): 0.5, (6, 0): 0.5, (0, 6): 0.5, (2, 6): 1.0, (2, -6): 0.0}.items():
        found = fourier_crop_images(waves(20, {(kx, ky): (1.0, 0.0)}), 12)
        torch.testing.assert_close(found, kept * waves(12, {(kx, ky): (1.0, 0.0)}), rtol=0, atol=1e-12)


@pytest.mark.parametrize("small", [7, 0, 22, -2])
def test_images_are_cropped_to_an_even_box_no_larger_than_theirs(small: int) -> None:
    with pytest.raises(ValueError, match="box must be even and from 2 to 20"):
        fourier_crop_images(random_images(2, 20, 20), small)

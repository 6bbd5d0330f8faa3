"""Centred Fourier transforms, the packed Fourier disc of an image, and Fourier cropping of images and volumes.

The origin of an array of n points is at index n // 2, in real and in Fourier space. Images are transformed as

    Ĩ(k) = (1/N) Σ_x I(x) exp(−2πi k·(x − c) / N)

so that white noise of standard deviation σ per pixel has E|Ĩ(k)|² = σ² at every coefficient (Parseval).
Volumes are transformed without the factor, so that the slice theorem reads  (P V)~(k) = V̂(Rᵀ(kx, ky, 0)) / N.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class FourierDisc:
    """The coefficients with |k| ≤ r_max of an N×N real image, Hermitian half only, packed into K numbers.

    Kept are kx > 0, and ky ≥ 0 where kx = 0. `box` is N in pixels, `r_max` in Fourier pixels (1 / (N pixels)).

    Raises ValueError where r_max reaches Nyquist, whose coefficients have no partner.
    """

    box: int
    r_max: float

    def __post_init__(self) -> None:
        if not 1 <= self.r_max < self.box / 2:
            raise ValueError(f"r_max must lie in [1, {self.box / 2}) for a box of {self.box}, found {self.r_max}")

    @cached_property
    def coordinates(self) -> Tensor:
        """Integer frequencies (kx, ky) of the K packed coefficients: (K, 2) int64, DC first."""
        r = math.floor(self.r_max)
        kx, ky = torch.meshgrid(torch.arange(0, r + 1), torch.arange(-r, r + 1), indexing="ij")
        keep = (kx**2 + ky**2 <= self.r_max**2) & ((kx > 0) | (ky >= 0))
        pairs = torch.stack([kx[keep], ky[keep]], dim=-1)
        # A stable order by radius puts DC first and makes a smaller disc a prefix of a larger one.
        return pairs[torch.argsort(pairs.square().sum(-1), stable=True)]

    @property
    def size(self) -> int:
        """K, the number of packed coefficients, about π r_max² / 2."""
        return int(self.coordinates.shape[0])

    @cached_property
    def radii(self) -> Tensor:
        """|k| of each coefficient in Fourier pixels: (K,) float64."""
        return self.coordinates.to(torch.float64).square().sum(-1).sqrt()

    @property
    def shells(self) -> Tensor:
        """round(|k|) of each coefficient: (K,) int64, ascending."""
        return self.radii.round().to(torch.int64)

    @cached_property
    def weights(self) -> Tensor:
        """Weight of each coefficient in a sum over the half disc: 1, and ½ for DC, (K,) float64."""
        weights = torch.ones(self.size, dtype=torch.float64)
        weights[0] = 0.5
        return weights

    def pack(self, images: Tensor) -> Tensor:
        """Transform real images (..., N, N) and keep the disc: complex (..., K)."""
        spectrum: Tensor = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1))) / self.box
        kx, ky = self.coordinates.unbind(-1)
        return spectrum[..., ky % self.box, kx]

    def unpack(self, packed: Tensor) -> Tensor:
        """Real images (..., N, N) of packed coefficients (..., K), zero outside the disc; inverse of `pack`."""
        kx, ky = self.coordinates.unbind(-1)
        spectrum = packed.new_zeros(*packed.shape[:-1], self.box, self.box // 2 + 1)
        spectrum[..., ky % self.box, kx] = packed
        on_axis = kx == 0
        # irfft2 expects both halves of the kx = 0 column.
        spectrum[..., -ky[on_axis] % self.box, 0] = packed[..., on_axis].conj()
        images: Tensor = torch.fft.irfft2(spectrum, s=(self.box, self.box)) * self.box
        centred: Tensor = torch.fft.fftshift(images, dim=(-2, -1))
        return centred

    def permutation(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Where a symmetry of the square lattice sends the disc: index (K,) int64 and conjugate (K,) bool.

        For an orthogonal integer 2×2 matrix g, coefficient n of the packed z(g k) is z[index[n]], conjugated
        where `conjugate[n]` because g k lies in the half that is not kept.
        """
        lookup = {(x, y): n for n, (x, y) in enumerate(self.coordinates.tolist())}
        image = (self.coordinates @ matrix.to(torch.int64).T).tolist()
        conjugate = torch.tensor([(x, y) not in lookup for x, y in image])
        index = torch.tensor([lookup[(-x, -y) if (x, y) not in lookup else (x, y)] for x, y in image])
        return index, conjugate


def fft3_centred(volume: Tensor) -> Tensor:
    """Centred 3D Fourier transform of (..., n, n, n), origin at n // 2 in both spaces, complex."""
    axes = (-3, -2, -1)
    spectrum: Tensor = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(volume, dim=axes), dim=axes), dim=axes)
    return spectrum


def ifft3_centred(spectrum: Tensor) -> Tensor:
    """Inverse of `fft3_centred`; complex (..., n, n, n), take `.real` of a Hermitian spectrum."""
    axes = (-3, -2, -1)
    volume: Tensor = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=axes), dim=axes), dim=axes)
    return volume


def centred_window(array: Tensor, box: int, dims: int = 3) -> Tensor:
    """Crop or zero-pad the last `dims` axes to `box`, keeping the origin at n // 2."""
    for axis in range(-dims, 0):
        n = array.shape[axis]
        if box <= n:
            array = array.narrow(axis, n // 2 - box // 2, box)
        else:
            before = box // 2 - n // 2
            padding = [0, 0] * (-axis - 1) + [before, box - n - before]
            array = torch.nn.functional.pad(array, padding)
    return array


def padded_fft3_centred(volume: Tensor, box: int) -> Tensor:
    """`fft3_centred` of a volume (n, n, n) zero-padded to `box`, where only what is not zero is transformed.

    FFTs go along the last axis, as memory runs; along another they are much slower.
    """
    spectrum = volume
    for order in ((1, 2, 0), (2, 1, 0), (0, 2, 1)):
        rows = torch.fft.ifftshift(centred_window(spectrum.permute(order), box, dims=1), dim=-1)
        spectrum = torch.fft.fftshift(torch.fft.fft(rows), dim=-1)
    return spectrum


def fourier_crop_images(images: Tensor, box: int) -> Tensor:
    """Real images (…, N, N) resampled onto `box` pixels, even and at most N, over the same length: (…, box, box).

    Values stay, as do those of detail coarser than the new Nyquist frequency. There, where box < N, a coefficient of
    box / 2 along x is the mean of both signs of kx, and one of box / 2 along y that of positive ky, as RELION 3.1 has
    it. Raises ValueError for a box that is odd, below 2 or above N.
    """
    n, half = images.shape[-1], box // 2
    if box % 2 or not 2 <= box <= n:
        raise ValueError(f"box must be even and from 2 to {n}, found {box}")
    spectrum: Tensor = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="forward")
    rows = torch.cat([torch.arange(half + 1), torch.arange(n - half + 1, n)])
    kept = spectrum[..., rows, : half + 1]
    # What is its own opposite has to be so exactly: transforms differ in what they make of others.
    opposite = kept[..., -torch.arange(box) % box, half].conj()
    kept[..., half] = (kept[..., half] + opposite) / 2
    kept[..., half, 0] = kept[..., half, 0].real.to(kept.dtype)
    cropped: Tensor = torch.fft.irfft2(kept, s=(box, box), norm="forward")
    centred: Tensor = torch.fft.fftshift(cropped, dim=(-2, -1))
    return centred


def fourier_resize(volume: Tensor, box: int, r_max: float | None = None) -> Tensor:
    """Resample real cubic volumes onto `box` voxels over the same length, keeping V̂(k): (…, box, box, box).

    Coefficients beyond `r_max` (default: Nyquist of the smaller box, excluded) become zero.
    """
    if volume.ndim > 3:  # one at a time, for the memory's sake
        return torch.stack([fourier_resize(one, box, r_max) for one in volume])
    smaller = min(box, volume.shape[-1])
    limit = (smaller - 1) // 2 if r_max is None else r_max
    spectrum = centred_window(fft3_centred(volume), box)
    spectrum = spectrum * (radius_grid(box, 3, volume.device) <= limit)
    return ifft3_centred(spectrum).real.to(volume.dtype)


def radius_grid(box: int, dims: int, device: torch.device | str = "cpu") -> Tensor:
    """Distance from the origin (index box // 2) of every point of a grid, in grid steps: float64."""
    axis = torch.arange(box, dtype=torch.float64, device=device) - box // 2
    squares = axis.square()
    total = squares
    for _ in range(dims - 1):
        total = total.unsqueeze(-1) + squares
    return total.sqrt()


def soft_sphere(box: int, diameter: float, edge: float, dims: int = 3, device: torch.device | str = "cpu") -> Tensor:
    """A disc or ball of ones with a raised-cosine edge: float64.

    `diameter` and `edge` are in grid steps; the mask is 1 inside diameter / 2 and 0 beyond diameter / 2 + edge.
    """
    radius = radius_grid(box, dims, device)
    fraction = ((radius - diameter / 2) / max(edge, 1e-9)).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * fraction))


def smoothed(field: Tensor, sigma_voxels: float) -> Tensor:
    """A real field (n, n, n), taken for periodic, convolved with a normal window of that standard deviation."""
    n = field.shape[-1]
    axis = torch.fft.fftfreq(n, dtype=field.dtype, device=field.device)
    gain = torch.exp(-2 * (math.pi * sigma_voxels * axis).square())
    spectrum = torch.fft.rfftn(field) * gain[:, None, None] * gain[None, :, None] * gain[: n // 2 + 1]
    found: Tensor = torch.fft.irfftn(spectrum, s=field.shape)
    return found


def half_of_even(field: Tensor) -> Tensor:
    """The planes −n to 0 of an even field (2n, 2n, 2n) whose origin is in the middle: (n + 1, 2n, 2n).

    Where one index is −n its other half is lost. No two voxels of a map are that far apart.
    """
    return field[: len(field) // 2 + 1].clone()


def even_of_half(planes: Tensor) -> Tensor:
    """The even field (2n, 2n, 2n) that these are half of."""
    mirrored = planes[1:-1].flip(0, 1, 2).roll((1, 1), (1, 2))
    return torch.cat([planes, mirrored])

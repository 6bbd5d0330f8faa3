"""The Fourier transform of images at any frequencies, off the grid."""

import torch
from torch import Tensor

from hoarfrost.maths.fourier import centred_window
from hoarfrost.nufft.torch import weighted_rows
from hoarfrost.nufft.window import KaiserBessel

WIDTH, OVERSAMPLING = 6, 2


def spectra_at(images: Tensor, frequencies: Tensor) -> Tensor:
    """Ĩ of real images (b, N, N) at frequencies (K, 2), (kx, ky) in Fourier pixels: complex64 (b, K).

    Normalised as by `FourierDisc.pack`. On white noise over the whole box the error is 5e-5 of the root mean square.
    """
    window, n = KaiserBessel(WIDTH, OVERSAMPLING), images.shape[-1]
    side = OVERSAMPLING * n
    axis = (torch.arange(n, dtype=torch.float64) - n // 2) / side
    gain = (1 / window.transform(axis)).to(torch.float32)
    padded = centred_window(images * gain[:, None] * gain, side, dims=2)
    spectrum = torch.fft.fft2(torch.fft.ifftshift(padded, dim=(-2, -1))) / n
    position = frequencies.to(torch.float64) * OVERSAMPLING
    taps = (position - WIDTH / 2).ceil()[..., None] + torch.arange(WIDTH)
    weights = window(taps - position[..., None]).to(torch.float32)
    x, y = (taps.to(torch.int64) % side).unbind(1)
    indices = (y[:, :, None] * side + x[:, None, :]).flatten(1)
    products = (weights[:, 1, :, None] * weights[:, 0, None, :]).flatten(1)
    rows = torch.view_as_real(spectrum.flatten(1).T.contiguous()).flatten(1)
    found = weighted_rows(rows, indices, products).view(len(frequencies), len(images), 2)
    return torch.view_as_complex(found).T.contiguous()

"""The studies that `hoarfrost benchmark` knows by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Size and settings of a study. `band_limit` is a share of Nyquist; the λs are those of the published prior.

    `box`, `pixel_size_A`, `n_images` and `snr` describe the synthetic images, and do not apply to particles that the
    user brings. Maps are kept after `map_marks` image gradients, after one epoch and at the end. `fsc_growth` is
    the ratio of image gradients between maps that are aligned with the truth. Orientations of particles that the user
    brings are as fine as for one that fills the box, or `poses_by_diameter`, as in a run.
    """

    name: str
    band_limit: float
    epochs: float
    box: int = 128
    pixel_size_A: float = 2.8
    n_images: int = 50_000
    snr: float = 0.05
    held_out: int = 100
    lambda_positive: float = 1e-4
    lambda_negative: float = 1e-4
    map_marks: tuple[int, ...] = (5_000, 50_000)
    baseline_iterations: int = 5
    sensitivity_epochs: float = 0.2
    fsc_growth: float = 4.0
    needs_particles: bool = False
    poses_by_diameter: bool = False


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "quick",
            band_limit=0.20,
            epochs=3,
            box=64,
            pixel_size_A=5.6,
            n_images=1_200,
            map_marks=(600,),
            sensitivity_epochs=0.5,
            fsc_growth=1e9,
        ),
        Preset("paper-synthetic", band_limit=0.10, epochs=10),
        Preset("paper-real", band_limit=0.16, epochs=10, lambda_positive=3e-2, needs_particles=True),
    )
}

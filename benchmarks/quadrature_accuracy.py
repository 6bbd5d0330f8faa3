"""How far the sum over poses is from the integral: the NLL of one map under turned and under finer quadratures.

    python benchmarks/quadrature_accuracy.py run/

Takes a finished run's map and its held-out particles. For each band limit it prints, in nats per image, the mean NLL
with the default quadrature, the spread of each image's NLL between two turned grids of the same size (divided by √2:
the error of one), the NLL with 1.5 times as many steps in each angle and shift, and the CPU time of the sums.
--sampled-diameter takes the orientations of another diameter: the cost of a smaller particle in the same box.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.all_poses.marginal import marginalise
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import make_orientation_quadrature, make_shift_quadrature, sampled_r_max
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack

REFINEMENT = 1.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--sampled-diameter", type=float, help="share of the box that orientations are for")
    options = parser.parse_args()
    settings = tomllib.loads((options.run / "config.toml").read_text())
    stack = ParticleStack.open(settings["particles"], settings.get("datadir"))
    pixel_A, box, seed = settings["pixel_size_A"], settings["box"], settings["seed"]
    diameter = options.sampled_diameter or settings["diameter_A"] / (box * pixel_A)
    sigma_px, extent_px = settings["shift_sigma_A"] / pixel_A, settings["shift_extent_A"] / pixel_A
    held_out, training = split_held_out(len(stack), settings["held_out"], seed)
    preprocessor = Preprocessor(box, settings["diameter_A"] / pixel_A, extent_px)
    source = ParticleSource(stack, preprocessor, training, named_generator(seed, "noise"))
    volume = torch.from_numpy(read_volume(options.run / "map.mrc")[0])
    titles = "error, one grid", "NLL, finer", "bias", "ms an image"
    print(f"{'r_max':>6} {'poses':>10} {'NLL':>9} {titles[0]:>16} {titles[1]:>11} {titles[2]:>7} {titles[3]:>12}")
    for r_max in settings["stages_r_max"]:
        disc = FourierDisc(box, r_max)
        images = source.images(held_out[: options.images], disc)

        def nll(sampling: float, name: str, disc: FourierDisc = disc, images: WhitenedImages = images) -> Tensor:
            turned = random_rotations(1, named_generator(seed, name))[0]
            orientations = make_orientation_quadrature(sampled_r_max(sampling, diameter)).rotated(turned)
            shifts = make_shift_quadrature(sampling, box, sigma_px, extent_px)
            small_box = box_of(disc.r_max)
            operator = SliceOperator(disc, small_box, orientations.base_rotations, kernel_width=3)
            slices = operator.slices(fourier_resize(volume, small_box, disc.r_max))
            return -marginalise(images, slices, PoseModel(disc, orientations, shifts)).log_evidence

        first = nll(r_max, "first")
        started = time.process_time()
        second = nll(r_max, "second")
        seconds = time.process_time() - started
        finer = nll(REFINEMENT * r_max, "finer")
        poses = make_orientation_quadrature(sampled_r_max(r_max, diameter)).n_nodes
        coarse = torch.cat([first, second]).mean()
        print(
            f"{r_max:6.2f} {poses:10,d} {coarse:9.2f} {(first - second).std() / 2**0.5:16.2f} "
            f"{finer.mean():11.2f} {coarse - finer.mean():7.2f} {1000 * seconds / len(images):12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

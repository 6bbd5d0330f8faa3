"""``hoarfrost simulate``: maps or atomic models in, noisy particle images with known poses out."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Output, command
from hoarfrost.simulation.options import Simulation


@command(verbs.simulate, Simulation)
def simulate(
    structures: Annotated[list[Path], Parameter(name="MAP")],
    /,
    *,
    n_particles: Annotated[int, Parameter(name=["--n-particles", "-n"])],
    output: Output,
    **options: Any,
) -> None:
    """Simulate, and say what to do with it."""
    verbs.simulate(structures, output, n_particles=n_particles, **options)
    print(f"Wrote {n_particles} particles to {output}")
    print(f"Reconstruct them with: hoarfrost reconstruct {output / 'particles.star'} -o RUN")

"""``hoarfrost example``: real particles to try the program on."""

from typing import Any

from hoarfrost import verbs
from hoarfrost.cli.command import Output, command
from hoarfrost.examples.options import ExampleOptions


@command(verbs.example, ExampleOptions)
def example(*, output: Output, **options: Any) -> None:
    """Write the particles, and say what to do with them."""
    from hoarfrost.examples.example import N_PARTICLES

    particles = verbs.example(output, **options)
    print(f"Wrote {N_PARTICLES} particles of β-galactosidase to {output}")
    print(f"Next: hoarfrost reconstruct {particles} -o run/")

"""The table of commands."""

from __future__ import annotations

from cyclopts import App, Parameter

from hoarfrost import __version__
from hoarfrost.cli.bench import bench
from hoarfrost.cli.benchmark import benchmark
from hoarfrost.cli.evaluate import evaluate
from hoarfrost.cli.reconstruct import reconstruct
from hoarfrost.cli.resume import resume
from hoarfrost.cli.simulate import simulate

app = App(
    name="hoarfrost",
    help="Ab-initio cryo-EM reconstruction: from particle images to a 3D map, with no starting model.",
    version=__version__,
    default_parameter=Parameter(negative=(), show_env_var=False),
    help_epilogue="Lengths are in Å. Exit codes: 0 done, 2 wrong usage, 3 wrong data, 4 done but not to be trusted, "
    "5 stopped and can be resumed, 1 anything else.",
)
app.command(reconstruct)
app.command(resume)
app.command(simulate)
app.command(evaluate)
app.command(benchmark)
app.command(bench)

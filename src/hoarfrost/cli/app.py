"""The table of commands."""

from __future__ import annotations

from cyclopts import App, Parameter

from hoarfrost import __version__
from hoarfrost.cli.bench import bench
from hoarfrost.cli.benchmark import benchmark
from hoarfrost.cli.compare import compare
from hoarfrost.cli.convert import convert
from hoarfrost.cli.evaluate import evaluate
from hoarfrost.cli.flip import flip
from hoarfrost.cli.inspect import inspect
from hoarfrost.cli.reconstruct import reconstruct
from hoarfrost.cli.report import report
from hoarfrost.cli.resume import resume
from hoarfrost.cli.simulate import simulate
from hoarfrost.cli.symmetrise import symmetrise

app = App(
    name="hoarfrost",
    help="Ab-initio cryo-EM reconstruction: from particle images to a 3D map, with no starting model.",
    version=__version__,
    default_parameter=Parameter(negative=(), show_env_var=False),
    help_epilogue="Lengths are in Å. Exit codes: 0 done, 2 wrong usage, 3 wrong data, 4 done but not to be trusted, "
    "5 stopped and can be resumed, 1 anything else.",
)
app.command(inspect)
app.command(reconstruct)
app.command(resume)
app.command(simulate)
app.command(evaluate)
app.command(report)
app.command(compare)
app.command(flip)
app.command(symmetrise)
app.command(convert)
app.command(benchmark)
app.command(bench)

"""The table of commands."""

from cyclopts import App, Parameter

from hoarfrost import __version__

# As the verbs' documentation begins, so that the list of commands loads none of their files: 0.3 s in place of 0.6 s.
SUMMARIES = {
    "example": "Write the example particles, 808 real ones of β-galactosidase (EMPIAR-10017), into a new folder.",
    "inspect": "Look at particles before a reconstruction: every parameter and its source, what looks wrong, time "
    "and memory.",
    "reconstruct": "Reconstruct a 3D map from particle images, with no starting model.",
    "refine": "Refine particles from the poses in their file, or from a map, to the final map.",
    "resume": "Go on with a reconstruction that was stopped or killed, from its last checkpoint, to the same result.",
    "simulate": "Simulate particle images of a map or several, by the forward model that reconstruct inverts.",
    "evaluate": "Compare a map with a reference: align over rotations, both hands and shifts, then tell FSC and "
    "correlation.",
    "report": "Write report.html into the folder of a run: one that is going on, was stopped or has ended.",
    "compare": "Compare two maps: align one to the other in each hand, then tell correlations, FSC curves and "
    "resolutions.",
    "flip": "Mirror a map to its other hand, and the poses of its particles with it.",
    "symmetrise": "Average a map over a point group, about the axes that are found in it, and say how well it agreed "
    "before.",
    "select": "Choose particles by junk probability, class, pose, defocus, micrograph or at random, and shrink their "
    "images.",
    "convert": "Convert a particle file: RELION's .star to cryoSPARC's .cs and back, a .par of FREALIGN or cisTEM to "
    "either.",
    "benchmark": "Compare optimisers and baselines from the same random start on one data set, and write what came of "
    "it.",
    "bench": "Measure the speed of the exact likelihood at the published size: 128 px, 98,872 orientations, 46,105 "
    "images.",
}


def commands(*, summaries_only: bool = False) -> App:
    """All commands, of which the one that is called is loaded; with `summaries_only` each is told in a line."""
    app = App(
        name="hoarfrost",
        help="Ab-initio cryo-EM reconstruction: from particle images to a 3D map, with no starting model.",
        version=__version__,
        default_parameter=Parameter(negative=(), show_env_var=False),
        help_epilogue="Lengths are in Å. Exit codes: 0 done, 2 wrong usage, 3 wrong data, 4 done but not to be "
        "trusted, 5 stopped and can be resumed, 1 anything else.",
    )
    for name, summary in SUMMARIES.items():
        told = {"help": summary} if summaries_only else {}
        app.command(f"hoarfrost.cli.{name}:{name}", name=name, **told)
    return app


app = commands()

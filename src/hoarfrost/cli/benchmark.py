"""``hoarfrost benchmark``: optimisers compared on one data set, with a report."""

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Output, Quiet, command
from hoarfrost.cli.study_summary import show_study
from hoarfrost.study.options import StudyOptions

NoSensitivity = Annotated[
    bool,
    Parameter(
        show_default=False, help="Do not repeat each method with a third of its step size and with three times it."
    ),
]


@command(verbs.benchmark, StudyOptions, without=("sensitivity",))
def benchmark(*, output: Output, no_sensitivity: NoSensitivity = False, quiet: Quiet = False, **options: Any) -> None:
    """Run the study, write its report, and print a line for each method."""
    from hoarfrost.cli.study_progress import StudyProgress

    sys.path.insert(0, "")  # the user's own module with an optimiser lies where the command is run
    with StudyProgress(quiet=quiet) as progress:
        result = verbs.benchmark(output, sensitivity=not no_sensitivity, progress=progress, **options)
    show_study(output, result.results["summary"]["methods"])

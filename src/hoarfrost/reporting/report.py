"""The verb `report`: a run folder in, its page report.html out; for a run that is going on, stopped or finished."""

from pathlib import Path

from hoarfrost.io.noise_star import read_noise
from hoarfrost.reporting import run_text
from hoarfrost.reporting.encode import own_style
from hoarfrost.reporting.history import likelihood_figure, resolution_figure
from hoarfrost.reporting.noise import noise_figure
from hoarfrost.reporting.page import Page
from hoarfrost.reporting.panel import FONTS
from hoarfrost.reporting.run_folder import RunFolder, read_run
from hoarfrost.reporting.structure_panels import add_panels, panel_names

PANELS = {
    "likelihood": "What the map explains",
    "resolution": "Detail in use",
    "starts": "Random starts",
    "classes": "Class sizes",
    "noise": "Noise in the images",
    "messages": "Messages",
    "settings": "Settings",
    "versions": "Versions",
}
NOTHING_YET = "Not there yet: the run has not come so far."


def report(folder: str | Path, reload_s: float | None = None) -> Path:
    """Write report.html into the folder of a run, from what is there; returns the page.

    With `reload_s` the page of a run that is going on, which loads itself again after these seconds. Raises UsageError
    for a folder that is none of a run, DataError for a file that cannot be read.
    """
    run = read_run(folder)
    verb = "reconstruct" if run.begins_at_random else "refine"
    page = Page(f"hoarfrost {verb}: {Path(run.settings['particles']).name}", reload_s)
    with own_style(FONTS):
        _fill(page, run, going_on=reload_s is not None)
    return page.write(run.path / "report.html")


def _fill(page: Page, run: RunFolder, *, going_on: bool) -> None:
    if run.doubts:
        page.items([*run_text.doubts(run)], "warnings")
    page.text(run_text.state_line(run, going_on=going_on))
    page.facts(run_text.facts(run, going_on=going_on))
    warnings = list(run_text.warnings(run))
    if warnings:
        page.items(warnings, "warnings")
    page.links([*panel_names(run), *_panels(run).items()])
    for structure in run.structures:
        with page.group("panels"):
            add_panels(page, run, structure)
    page.heading("The run")
    with page.group("panels"):
        for name, title in _panels(run).items():
            with page.section(name, title):
                _add_panel(page, name, run)


def _panels(run: RunFolder) -> dict[str, str]:
    without = {"classes"} if len(run.structures) == 1 else set()
    without |= set() if run.begins_at_random else {"starts"}
    return {name: title for name, title in PANELS.items() if name not in without}


def _add_panel(page: Page, name: str, run: RunFolder) -> None:
    match name:
        case "likelihood" if run.judged:
            _likelihood(page, run)
        case "resolution" if run.steps:
            page.figure(resolution_figure(run), "Finest detail in use, in Å, against image gradients")
            page.text("Detail is added as long as it explains particles that were held out any better.")
        case "starts":
            _starts(page, run)
        case "classes":
            page.table(*run_text.classes_table(run))
            page.text(
                "Classes that look alike, or one that next to no particle shows, say that there are fewer structures "
                "than were asked for."
            )
        case "noise" if (run.path / "noise.star").is_file():
            noise = noise_figure(read_noise(run.path / "noise.star"), run.settings["max_resolution_A"])
            page.figure(noise, "Variance of the noise against resolution")
            page.text(
                "Measured outside the particles, on up to 500 images. Images are divided by it, so that noise counts "
                "the same at all resolutions. Peaks may be ice, or a fault of the detector."
            )
        case "messages" if run.messages:
            page.items(run_text.messages(run), "messages")
        case "settings":
            page.table(*run_text.settings_table(run), kind="texts")
            page.text(
                "A source is the user who gave the value, the data or the machine that it was chosen for, or the "
                "default of all runs, which a value that equals it counts as."
            )
        case "versions":
            page.table(*run_text.versions_table(run), kind="texts")
        case _:
            page.text(NOTHING_YET, "absent")


def _likelihood(page: Page, run: RunFolder) -> None:
    last = run.judged[-1]
    words = f"Held-out NLL, and gain over an empty map, against image gradients; the last gain: {run_text.gain(last)}"
    page.figure(likelihood_figure(run), words)
    page.text(
        f"Mean negative log-likelihood (NLL) of {run.settings.get('held_out', 'some')} particles that the map is not "
        "made of, and how much better it explains them than an empty map; bands are standard errors. Finer detail is "
        "other data with another NLL, which is shown of the first band limit only; the gain can be compared "
        f"throughout. The last NLL, to {last['resolution_A']:.1f} Å, is {last['nll']:.2f}, and the gain "
        f"{run_text.gain(last)}. Points of the final passes are of every particle, each under a map that it is not in, "
        "and need not join those before. A gain near zero says that the map explains nothing; one that falls, that "
        "it fits noise: the run then goes back to the best map that there was."
    )


def _starts(page: Page, run: RunFolder) -> None:
    if run.starts is None:
        one = run.settings["starts"] == 1
        page.text("One start was asked for: there is nothing to compare it with." if one else NOTHING_YET, "absent")
        return
    page.table(*run_text.starts_table(run))
    page.text(
        f"{run_text.starts_summary(run.starts)}. Wrong maps differ from start to start, and a right one does not but "
        "for its hand and place. Two wrong ones that agree are rare, most likely with symmetric particles."
    )

"""The page of a run, read as HTML: every panel, nothing to be loaded, and text that stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import DataError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reporting import report as run_module
from hoarfrost.reporting import structure_panels
from hoarfrost.simulation.simulate import SimulatedData

MakeRun = Callable[..., Path]

STRUCTURE = {"slices", "surface", "matches", "fsc", "reslog", "orientations"}
RUN = {"likelihood", "resolution", "starts", "noise", "messages", "settings", "versions"}
MARKUP = '<script>alert(1)</script><img src=x onerror="alert(2)">'
ABSENT = 'class="absent"'


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of each section, script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.scripts: list[tuple[dict[str, str], str]] = []
        self._section, self._open = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        self._open = tag
        if tag == "section":
            self._section = found["id"]
            self.sections[self._section] = ""
        if tag == "script":
            self.scripts.append((found, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + data
        elif self._section:
            self.sections[self._section] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def finished(make_run: MakeRun, particles: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with its page, whose particles are gone."""
    folder = tmp_path_factory.mktemp("runs")
    data = shutil.copytree(particles.true_poses_path.parent, folder / "data")
    run = make_run(folder / "run", star=data / particles.true_poses_path.name, message=MARKUP)
    shutil.rmtree(data)
    with pytest.raises(DataError, match="expected the image file"):
        ParticleStack.open(run / "particles.star")
    hoarfrost.report(run)
    return run


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return (finished / "report.html").read_text(encoding="utf-8")


def test_every_panel_is_there_and_filled(page: str) -> None:
    found = Elements(page)
    assert set(found.sections) == STRUCTURE | RUN
    assert ABSENT not in page
    links = {a["href"].removeprefix("#") for a in found.all("a")}
    assert links == set(found.sections)
    assert "6.0 nats a particle" not in found.sections["likelihood"]
    assert "9.0 ± 0.4 nats a particle" in found.sections["likelihood"]
    assert "2 of 2 agree, to 21 Å" in found.sections["starts"]
    assert "71 % (0.28 %)" in found.sections["starts"]
    assert re.search(r"agree to \d+\.\d Å \(red dot\)", found.sections["fsc"])
    assert "every direction of the map" in found.sections["orientations"] or "uneven" in found.sections["orientations"]


def test_every_setting_is_told_with_its_source(finished: Path, page: str) -> None:
    told = Elements(page).sections["settings"]
    assert "max_resolution_A21.3333 Åfrom the user" in told
    assert "seed3from the user" in told
    assert "diameter_A163.2 Åfrom the data" in told
    assert "batch_size25from the data" in told
    assert "methodautodefault" in told
    assert re.search(r"threads\d+from the machine", told)
    assert "not told" not in told


def test_pictures_have_words_and_are_in_the_page(page: str) -> None:
    pictures = Elements(page).all("img")
    assert all(len(picture["alt"]) > 5 for picture in pictures)
    assert all(picture["src"].startswith("data:image/") for picture in pictures)
    kinds = [picture["src"].partition(";")[0] for picture in pictures]
    assert kinds.count("data:image/svg+xml") == 7
    assert kinds.count("data:image/png") == 17  # eight particles, eight projections, the surface before it is drawn


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(page: str) -> None:
    found = Elements(page)
    for tag, attributes in found.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    assert not found.all("link")
    assert not found.all("iframe")
    [policy] = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for attributes, text in found.scripts
        if attributes.get("type") != "application/json"
    ]
    assert rules["script-src"] == hashes
    assert len(hashes) == 2


def test_the_surface_comes_with_its_data(page: str) -> None:
    [(_, text)] = [s for s in Elements(page).scripts if s[0].get("type") == "application/json"]
    surface = json.loads(text)
    assert surface["lowest"] < surface["level"] < surface["highest"]
    assert len(base64.b64decode(surface["values"])) == 2 * surface["n"] ** 3
    assert surface["voxel_A"] * surface["n"] == pytest.approx(32 * 6.0)


def test_text_stays_text(make_run: MakeRun, particles: SimulatedData, page: str, tmp_path: Path) -> None:
    assert MARKUP in Elements(page).sections["messages"]
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    star = tmp_path / "a" / "<script>alert(1)<img src=x onerror=alert(2)>&.star"
    star.parent.mkdir()
    shutil.copy(particles.true_poses_path, star)
    (stack,) = particles.true_poses_path.parent.glob("*.mrcs")
    shutil.copy(stack, star.parent)
    run = make_run(tmp_path / "run", star=star, finished=False)
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert star.name in Elements(text).sections["settings"]


def test_a_run_that_goes_on_shows_what_stands(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False)
    with (run / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"iteration": 17, "start"')  # is being written
    hoarfrost.report(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    found = Elements(text)
    assert set(found.sections) == STRUCTURE | {"local"} | RUN
    # The agreement of half maps, local resolution, that against the number of particles, and the orientations.
    assert text.count(ABSENT) == 4
    assert "The map so far, to 27 Å" in text
    assert "It was last heard of on" in text
    assert f"Where it was stopped, go on with: hoarfrost resume {run}" in text
    assert "% done, about" not in text
    assert text.count('alt="Projection at the pose') == 8
    assert "data-reload-s" not in text


def test_a_run_without_a_map_yet_has_a_page(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False)
    shutil.rmtree(run / "live")
    (run / "events.jsonl").write_text("", encoding="utf-8")
    (run / "starts.json").unlink()
    hoarfrost.report(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert set(Elements(text).sections) == STRUCTURE | {"local"} | RUN
    assert text.count(ABSENT) == 11


@pytest.mark.parametrize("is_finished", [True, False])
def test_each_class_has_its_panels(make_run: MakeRun, tmp_path: Path, is_finished: bool) -> None:
    run = make_run(tmp_path / "run", classes=2, finished=is_finished)
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    found = Elements(text)
    structure = STRUCTURE if is_finished else STRUCTURE | {"local"}
    assert set(found.sections) == {f"{name}-{c}" for name in structure for c in (1, 2)} | RUN | {"classes"}
    assert "150.0%250.0%" in re.sub(r"\s|(?<=%)30", "", found.sections["classes"])
    assert text.count(ABSENT) == (0 if is_finished else 8)


def test_local_resolution_has_a_panel_where_it_was_found(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    mask, pixel_size_A = read_volume(run / "mask.mrc")
    write_volume(run / "local_resolution.mrc", np.linspace(20, 30, mask.size).reshape(mask.shape), pixel_size_A)
    hoarfrost.report(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    section = Elements(text).sections["local"]
    assert "Å in the finest tenth of the particle" in section


@pytest.mark.parametrize("name", ["nothing here", "empty", "file", "class"])
def test_a_folder_that_is_no_run_is_the_users_mistake(
    make_run: MakeRun,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / name
    if name == "empty":
        folder.mkdir()
    elif name == "file":
        folder.write_text("x")
    elif name == "class":
        folder = make_run(tmp_path / "run", classes=2) / "class001"
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hoarfrost: error: {folder} is no")
    assert ("give " + str(folder.parent) in line) == (name == "class")


def test_a_damaged_file_of_a_run_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    (run / "events.jsonl").write_text("\n".join([*lines[:2], '{"iteration"', *lines[3:]]), encoding="utf-8")
    assert main(["report", str(run)]) == 3
    assert "events.jsonl, row 3: expected an event of a run" in capsys.readouterr().err
    (run / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (run / "map.mrc").write_bytes((run / "map.mrc").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"map\.mrc"):
        hoarfrost.report(run)
    (run / "config.toml").write_text("seed = 3\n", encoding="utf-8")
    with pytest.raises(DataError, match="the settings of a run, particles among them"):
        hoarfrost.report(run)


def test_the_documentation_names_every_panel() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    titles = [*structure_panels.PANELS.values(), *run_module.PANELS.values()]
    assert len(titles) == 15
    assert [title for title in titles if title not in text] == []

"""No column of an earlier refinement survives new poses unchanged; the docs say what becomes of each."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hoarfrost.io.columns import SIGN_COLUMN, UID_COLUMN, Fate, earlier, fate_of, told_of_earlier
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.star import read_star, write_star

CASES = Path(__file__).parents[1] / "cases" / "data"
DOCS = Path(__file__).parents[2] / "docs" / "formats.md"


@dataclass(frozen=True)
class Kind:
    """Columns of one kind: what they tell, what becomes of them and, where they are replaced, by what."""

    told: str
    fate: Fate
    names: tuple[str, ...]
    by: str = ""


def _rln(names: str) -> tuple[str, ...]:
    return tuple(f"rln{name}" for name in names.split())


def _named(names: str) -> tuple[str, ...]:
    return tuple(name if name.startswith("hoarfrost") else f"rln{name}" for name in names.split())


KINDS = (
    Kind(
        "image",
        "kept",
        (
            *_rln(
                "ImageName ImageOriginalName ReconstructImageName ImageId ImageSize ImageSizeX ImageSizeY ImageSizeZ "
                "ImagePixelSize PixelSize SamplingRate SamplingRateX SamplingRateY SamplingRateZ ImageDimensionality "
                "DataType OriginalImageSize ImageWeight Enabled Selected MinimumValue MaximumValue AverageValue "
                "StandardDeviationValue SkewnessValue KurtosisExcessValue"
            ),
            SIGN_COLUMN,
        ),
    ),
    Kind(
        "name and group",
        "kept",
        (
            *_rln("ParticleName OriginalParticleName ParticleId GroupName GroupNumber OpticsGroup"),
            UID_COLUMN,
            *_rln("OpticsGroupName BeamTiltClass"),
        ),
    ),
    Kind(
        "micrograph, movie and place in it",
        "kept",
        _rln(
            "MicrographName MicrographNameNoDW MicrographId MicrographMovieName MicrographMetadata MicrographGainName "
            "MicrographDefectFile MicrographPixelSize MicrographOriginalPixelSize MicrographBinning "
            "MicrographPreExposure MicrographDoseRate MicrographFrameNumber MicrographTiltAngle "
            "MicrographTiltAxisDirection MicrographTiltAxisOutOfPlane CoordinateX CoordinateY CoordinateZ "
            "AccumMotionTotal AccumMotionEarly AccumMotionLate NrOfFrames AverageNrOfFrames MovieFrameNumber "
            "MovieFramesRunningAverage AutopickFigureOfMerit"
        ),
    ),
    Kind(
        "microscope and CTF",
        "kept",
        _rln(
            "Voltage SphericalAberration AmplitudeContrast ChromaticAberration DetectorPixelSize Magnification "
            "MagnificationCorrection DefocusU DefocusV DefocusAngle PhaseShift CtfAstigmatism CtfBfactor "
            "CtfScalefactor CtfMaxResolution CtfFigureOfMerit CtfValidationScore CtfImage CtfPowerSpectrum CtfValue "
            "BeamTiltX BeamTiltY OddZernike EvenZernike MagMat00 MagMat01 MagMat10 MagMat11 MtfFileName "
            "CtfDataArePhaseFlipped CtfDataAreCtfPremultiplied"
        ),
    ),
    Kind(
        "filament and tomogram",
        "kept",
        _rln(
            "HelicalTubeID HelicalTubePitch HelicalTrackLength HelicalTrackLengthAngst TomoName TomoParticleName "
            "TomoParticleId TomoVisibleFrames TomoSubtomogramRot TomoSubtomogramTilt TomoSubtomogramPsi "
            "TomoSubtomogramBinning TomoTiltSeriesName TomoTiltSeriesPixelSize CenteredCoordinateXAngst "
            "CenteredCoordinateYAngst CenteredCoordinateZAngst"
        ),
    ),
    Kind("pose", "replaced", _named("AngleRot AngleTilt AnglePsi"), "the new pose"),
    Kind(
        "offset",
        "replaced",
        _named("OriginX OriginY OriginXAngst OriginYAngst"),
        "the new offset, in the unit of the file's version",
    ),
    Kind(
        "centre of a local search",
        "replaced",
        _named(
            "AngleRotPrior AngleTiltPrior AnglePsiPrior OriginXPrior OriginYPrior OriginXPriorAngst OriginYPriorAngst"
        ),
        "the new pose and offset, where the file has them",
    ),
    Kind("half", "replaced", _named("RandomSubset"), "1 and 2: the half map that the particle is in"),
    Kind(
        "probability",
        "replaced",
        _named("MaxValueProbDistribution LogLikeliContribution hoarfrostJunkProbability"),
        "those of this run",
    ),
    Kind(
        "class",
        "replaced",
        _named("ClassNumber hoarfrostClassProbability1"),
        "those of this run, dropped in a run for one structure",
    ),
    Kind(
        "scale and fit of an earlier refinement",
        "dropped",
        _named(
            "NormCorrection NrOfSignificantSamples KullbackLeiblerDivergence ParticleFigureOfMerit "
            "ParticleSelectZScore PerFrameCumulativeWeight PerFrameRelativeWeight GroupScaleCorrection "
            "hoarfrostParticle"
        ),
    ),
    Kind(
        "what goes with an earlier pose",
        "dropped",
        _named(
            "OriginZ OriginZAngst OriginZPrior OriginZPriorAngst AngleRotFlipRatio AngleTiltFlipRatio "
            "AnglePsiFlipRatio AnglePsiFlip IsFlip"
        ),
    ),
)
CS_KINDS = (
    Kind("image", "kept", ("uid", "blob")),
    Kind("CTF", "kept", ("ctf",)),
    Kind("micrograph and place in it", "kept", ("location",)),
    Kind(
        "microscope, picking, motion and filament; not kept, as a STAR file has no place for them",
        "dropped",
        ("mscope_params", "pick_stats", "motion", "local_motion", "background", "filament"),
    ),
    Kind("pose, offset, half and class", "replaced", ("alignments3D",), "those of this run, by way of the STAR file"),
    Kind(
        "what an earlier classification, variability analysis or expansion found",
        "dropped",
        (
            "alignments2D",
            "alignments3D_multi",
            "alignments_class",
            "alignments_class3D",
            "components_mode",
            "sym_expand",
        ),
    ),
)
NAMES = [name for kind in KINDS for name in kind.names]
# What a column of the table may hold in a file of RELION 3.1 and of 3.0 without being refused for it.
OF_THE_RUN = {"rlnMaxValueProbDistribution", "rlnLogLikeliContribution", "hoarfrostJunkProbability", "rlnRandomSubset"}
NEEDED = {
    name for name in NAMES if re.match(r"rln(Image|Optics|Pixel|Ctf|Voltage|Spher|Ampl|Magnif|Detector|Defocus)", name)
}


def test_every_column_has_one_place() -> None:
    assert {name: fate_of(name) for name in NAMES} == {name: kind.fate for kind in KINDS for name in kind.names}
    assert len(NAMES) == len(set(NAMES))
    assert all(kind.by for kind in (*KINDS, *CS_KINDS) if kind.fate == "replaced")
    assert {fate_of(name) for name in ("wrpSourceName", "_level_0", "rlnSomethingNew")} == {"kept"}
    assert fate_of("hoarfrostClassProbability7") == "replaced"
    assert told_of_earlier(["rlnImageName", "rlnVoltage"]) is None
    assert "rlnNormCorrection, rlnAngleRot" in (
        told_of_earlier(["rlnImageName", "rlnNormCorrection", "rlnAngleRot"]) or ""
    )


@pytest.mark.parametrize(
    ("column", "fate"),
    [
        ("rlnAngleTiltPrior", "replaced"),
        ("rlnRandomSubset", "replaced"),
        ("rlnClassNumber", "replaced"),
        ("rlnNormCorrection", "dropped"),
        ("rlnOriginZAngst", "dropped"),
        ("rlnAnglePsiFlipRatio", "dropped"),
        ("hoarfrostParticle", "dropped"),
        ("rlnAutopickFigureOfMerit", "kept"),
        ("rlnHelicalTubeID", "kept"),
        ("rlnGroupNumber", "kept"),
        ("rlnBeamTiltX", "kept"),
        ("hoarfrostUid", "kept"),
        ("hoarfrostSign", "kept"),
    ],
)
def test_what_becomes_of_some(column: str, fate: str) -> None:
    assert fate_of(column) == fate


# Near 1, as a microscope's magnification is.
MATRIX = {"rlnMagMat00": 1, "rlnMagMat01": 0, "rlnMagMat10": 0, "rlnMagMat11": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.sampled_from([name for name in NAMES if name not in NEEDED]), max_size=30),
    is_relion_31=st.booleans(),
)
def test_none_survives_unchanged_and_what_describes_the_particle_does(
    tmp_path: Path, names: set[str], is_relion_31: bool
) -> None:
    star = read_star(CASES / "particles.star")
    (tmp_path / "particles.mrcs").write_bytes((CASES / "particles.mrcs").read_bytes())
    particles = star.tables["particles"]
    optics = star.tables["optics"].columns
    n = particles.n_rows
    columns = dict(particles.columns)
    tables = dict(star.tables)
    if not is_relion_31:
        columns |= {name: [values[0]] * n for name, values in optics.items() if name not in columns}
        del tables["optics"]
    columns |= {name: [f"0.{i}25" for i in range(n)] for name in names}
    columns |= {name: ["-1"] * n for name in names & {"hoarfrostSign"}}
    columns |= {name: [f"{value}.0{i}25" for i in range(n)] for name, value in MATRIX.items() if name in names}
    columns |= {name: [f"[0,0.{i}25]" for i in range(n)] for name in names & {"rlnOddZernike", "rlnEvenZernike"}}
    tables["particles"] = dataclasses.replace(particles, columns=columns)
    write_star(tmp_path / "in.star", tables.values())

    rng = np.random.default_rng(0)
    found = {name: rng.random(n) for name in OF_THE_RUN}
    table = read_particles(tmp_path / "in.star")
    write_posed_particles(
        tmp_path / "out.star", table, Rotation.random(n, rng=rng).as_matrix(), rng.random((n, 2)), found
    )
    after = read_star(tmp_path / "out.star").tables["particles"].columns

    for name in columns:
        if fate_of(name) == "kept":
            assert list(after[name]) == list(columns[name])
        else:
            assert name not in after or list(after[name]) != list(columns[name])
    for name in earlier(after):
        kind = next(kind for kind in KINDS if name in kind.names)
        assert kind.fate == "replaced"
        if name.endswith(("Prior", "PriorAngst")):
            assert list(after[name]) == list(after[name.replace("Prior", "")])
    dropped = {name for name in names if fate_of(name) == "dropped"}
    assert not dropped & after.keys()


def rows(kinds: tuple[Kind, ...], prefix: str) -> list[str]:
    """The rows of the docs' table: what columns tell, which they are, and what becomes of them."""
    told = []
    for kind in kinds:
        named = ", ".join(f"`{name}{prefix}`" for name in kind.names)
        becomes = f"replaced: {kind.by}" if kind.by else kind.fate
        told.append(f"| {kind.told} | {named} | {becomes} |")
    return told


def test_the_docs_have_every_column() -> None:
    lines = DOCS.read_text().splitlines()
    missing = [row for row in (*rows(KINDS, ""), *rows(CS_KINDS, "")) if row not in lines]
    assert not missing, "put into docs/formats.md:\n" + "\n".join(missing)

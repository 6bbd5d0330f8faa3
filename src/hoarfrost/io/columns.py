"""What becomes of the columns of a particle file when its particles get new poses.

A column describes either the particle (its image, its place, its microscope), and is kept; or what an earlier
refinement found, and is replaced by what this one found, or dropped. A column that the table does not know is kept.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Fate = Literal["kept", "replaced", "dropped"]

SIGN_COLUMN = "hoarfrostSign"
"""What the pixels of an image have to be multiplied by, 1 or −1, before protein is white."""
UID_COLUMN = "hoarfrostUid"
"""cryoSPARC's uid of a particle."""


@dataclass(frozen=True)
class Kind:
    """Columns of one kind: what they tell, what becomes of them and, where they are replaced, by what."""

    told: str
    fate: Fate
    names: tuple[str, ...]
    by: str = ""


def _rln(names: str) -> tuple[str, ...]:
    return tuple(f"rln{name}" for name in names.split())


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
    Kind("pose", "replaced", _rln("AngleRot AngleTilt AnglePsi"), "the new pose"),
    Kind(
        "offset",
        "replaced",
        _rln("OriginX OriginY OriginXAngst OriginYAngst"),
        "the new offset, in the unit of the file's version",
    ),
    Kind(
        "centre of a local search",
        "replaced",
        _rln(
            "AngleRotPrior AngleTiltPrior AnglePsiPrior OriginXPrior OriginYPrior OriginXPriorAngst OriginYPriorAngst"
        ),
        "the new pose and offset, where the file has them",
    ),
    Kind("half", "replaced", _rln("RandomSubset"), "1 and 2: the half map that the particle is in"),
    Kind(
        "probability",
        "replaced",
        (*_rln("MaxValueProbDistribution LogLikeliContribution"), "hoarfrostJunkProbability"),
        "those of this run",
    ),
    Kind(
        "class",
        "replaced",
        (*_rln("ClassNumber"), "hoarfrostClassProbability1"),
        "those of this run, dropped in a run for one structure",
    ),
    Kind(
        "scale and fit of an earlier refinement",
        "dropped",
        (
            *_rln(
                "NormCorrection NrOfSignificantSamples KullbackLeiblerDivergence ParticleFigureOfMerit "
                "ParticleSelectZScore PerFrameCumulativeWeight PerFrameRelativeWeight GroupScaleCorrection"
            ),
            "hoarfrostParticle",
        ),
    ),
    Kind(
        "what goes with an earlier pose",
        "dropped",
        _rln(
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

_FATES = {name: kind.fate for kind in KINDS for name in kind.names}
_OF_CLASSES = re.compile(r"hoarfrostClassProbability[0-9]+")


def fate_of(column: str) -> Fate:
    """What becomes of a column of a STAR file."""
    return "replaced" if _OF_CLASSES.fullmatch(column) else _FATES.get(column, "kept")


def earlier(columns: Iterable[str]) -> list[str]:
    """Those of the columns that describe an earlier refinement."""
    return [name for name in columns if fate_of(name) != "kept"]


def told_of_earlier(columns: Iterable[str]) -> str | None:
    """One sentence on the columns of an earlier refinement that a run does not take over; None without any."""
    found = earlier(columns)
    if not found:
        return None
    return f"The file tells of an earlier refinement, and the run takes none of it over: {', '.join(found)}"


# cryoSPARC's fields, by the columns that are made of them.
FIELD_OF_COLUMN = {
    "rlnImageName": "blob/path and blob/idx",
    "rlnImagePixelSize": "blob/psize_A",
    "rlnImageSize": "blob/shape",
    SIGN_COLUMN: "blob/sign",
    "rlnVoltage": "ctf/accel_kv",
    "rlnSphericalAberration": "ctf/cs_mm",
    "rlnAmplitudeContrast": "ctf/amp_contrast",
    "rlnOpticsGroup": "ctf/exp_group_id",
    "rlnDefocusU": "ctf/df1_A",
    "rlnDefocusV": "ctf/df2_A",
    "rlnDefocusAngle": "ctf/df_angle_rad",
    "rlnPhaseShift": "ctf/phase_shift_rad",
    "rlnCtfBfactor": "ctf/bfactor",
    "rlnCtfScalefactor": "ctf/scale",
    "rlnMicrographName": "location/micrograph_path",
    "rlnCoordinateX": "location/center_x_frac and location/micrograph_shape",
    "rlnCoordinateY": "location/center_y_frac and location/micrograph_shape",
    "rlnAngleRot": "alignments3D/pose",
    "rlnAngleTilt": "alignments3D/pose",
    "rlnAnglePsi": "alignments3D/pose",
    "rlnOriginXAngst": "alignments3D/shift and alignments3D/psize_A",
    "rlnOriginYAngst": "alignments3D/shift and alignments3D/psize_A",
    "rlnRandomSubset": "alignments3D/split",
    "rlnClassNumber": "alignments3D/class",
}

"""What becomes of the columns of a particle file when its particles get new poses.

A column describes either the particle (its image, its place, its microscope), and is kept; or what an earlier
refinement found, and is replaced by what this one found, or dropped. A column that is not named here is kept.
"""

import re
from collections.abc import Collection, Iterable
from typing import Literal

Fate = Literal["kept", "replaced", "dropped"]

SIGN_COLUMN = "hoarfrostSign"
"""What the pixels of an image have to be multiplied by, 1 or −1, before protein is white."""
UID_COLUMN = "hoarfrostUid"
"""cryoSPARC's uid of a particle."""


def _names(names: str) -> set[str]:
    return {name if name.startswith("hoarfrost") else f"rln{name}" for name in names.split()}


# docs/formats.md has the others too, which are kept.
_REPLACED = _names(
    "AngleRot AngleTilt AnglePsi OriginX OriginY OriginXAngst OriginYAngst "
    "AngleRotPrior AngleTiltPrior AnglePsiPrior OriginXPrior OriginYPrior OriginXPriorAngst OriginYPriorAngst "
    "RandomSubset MaxValueProbDistribution LogLikeliContribution hoarfrostJunkProbability ClassNumber"
)
_DROPPED = _names(
    "NormCorrection NrOfSignificantSamples KullbackLeiblerDivergence ParticleFigureOfMerit ParticleSelectZScore "
    "PerFrameCumulativeWeight PerFrameRelativeWeight GroupScaleCorrection hoarfrostParticle "
    "OriginZ OriginZAngst OriginZPrior OriginZPriorAngst "
    "AngleRotFlipRatio AngleTiltFlipRatio AnglePsiFlipRatio AnglePsiFlip IsFlip"
)
HALF_COLUMN = "rlnRandomSubset"
"""The half of the particles, 1 or 2, that one is in."""
POSE_COLUMNS = _names("AngleRot AngleTilt AnglePsi OriginX OriginY OriginXAngst OriginYAngst")
"""What tells the pose of a particle."""
_OF_CLASSES = re.compile(r"hoarfrostClassProbability[0-9]+")


def fate_of(column: str) -> Fate:
    """What becomes of a column of a STAR file."""
    if column in _REPLACED or _OF_CLASSES.fullmatch(column):
        return "replaced"
    return "dropped" if column in _DROPPED else "kept"


def earlier(columns: Iterable[str]) -> list[str]:
    """Those of the columns that describe an earlier refinement."""
    return [name for name in columns if fate_of(name) != "kept"]


def told_of_earlier(columns: Iterable[str], taken_over: Collection[str] = ()) -> str | None:
    """One sentence on the columns of an earlier refinement that a run does not take over; None without any."""
    found = [name for name in earlier(columns) if name not in taken_over]
    if not found:
        return None
    begins = "does not take over" if taken_over else "takes none of it over"
    return f"The file tells of an earlier refinement, and the run {begins}: {', '.join(found)}"


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

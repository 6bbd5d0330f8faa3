"""Two maps of equal standing: how alike they are in each hand, after alignment over rotations and shifts.

`evaluate` takes the better hand and says which. Here both are reported, since a map of low resolution agrees with its
mirror image almost as well as with itself.
"""

from dataclasses import dataclass
from pathlib import Path

from hoarfrost.evaluation.evaluate import EvaluationReport, align_maps, read_map, report_on
from hoarfrost.evaluation.options import CompareOptions


@dataclass(frozen=True)
class Comparison:
    """The first map aligned to the second as it is, `same`, and mirrored, `other`; `mirrored`: the latter fits better.

    Better is what the alignment maximises, the mutual information of all shells, and not the correlation of voxels,
    which the coarsest shells decide.
    """

    same: EvaluationReport
    other: EvaluationReport
    mirrored: bool

    @property
    def best(self) -> EvaluationReport:
        """That of the better hand."""
        return self.other if self.mirrored else self.same

    def to_dict(self) -> dict[str, object]:
        """Everything but the aligned maps, ready for JSON."""
        return {"mirrored": self.mirrored, "same_hand": self.same.to_dict(), "other_hand": self.other.to_dict()}

    def lines(self) -> list[str]:
        """The comparison as lines for a terminal, ending with the FSC table of both hands."""
        best = self.best
        lines = [
            f"Map          {best.map_path}",
            f"Compared to  {best.reference_path} ({best.box} voxels of {best.pixel_size_A:.4g} Å)",
        ]
        for name, report in (("Same hand", self.same), ("Other hand", self.other)):
            lines.append(
                f"{name:12s} correlation {report.correlation:.3f}, FSC 0.5 at {report.resolution_05_A:.1f} Å, 0.143 at "
                f"{report.resolution_0143_A:.1f} Å"
            )
        lines += [f"Better       {'the other hand' if self.mirrored else 'the same hand'}"]
        lines += ["", "shell  resolution   FSC, same hand   other hand"]
        rows = zip(self.same.fsc, self.other.fsc, best.shell_resolutions_A, strict=True)
        for shell, (same, other, length_A) in enumerate(rows):
            if length_A is not None:
                lines.append(f"{shell:5d}  {length_A:8.1f} Å  {same:15.3f}  {other:11.3f}")
        return lines


def compare(first: str | Path, second: str | Path, options: CompareOptions) -> Comparison:
    """The verb `hoarfrost.compare`, which documents arguments and errors."""
    judged, target = read_map(first, options.pixel_size_A), read_map(second, options.pixel_size_A)
    found = [align_maps(judged, target, mirrored=mirrored) for mirrored in (False, True)]
    same, other = (report_on(one, judged, target, options.mask_diameter_A) for one in found)
    return Comparison(same, other, found[1].score > found[0].score)

"""A script by which ChimeraX shows a run's map as it should be looked at: ``chimerax run/view.cxc``.

The surface lies at Otsu's threshold of the map inside its mask, which separates protein from solvent.
"""

from pathlib import Path

from hoarfrost.evaluation.local_resolution import FILE, read_spread
from hoarfrost.evaluation.particle_mask import otsu_threshold
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.mrc import read_volume

COLOURS = {"map.mrc": "#8fb3d9", "half1.mrc": "#d9b38f", "half2.mrc": "#a8c98f"}
SCRIPT = "view.cxc"


def write_chimerax_script(run: str | Path) -> None:
    """Write run/view.cxc: the map as a surface, coloured by local resolution, and hidden half maps at the same level.

    ChimeraX takes the names from the script's folder. Raises DataError where a map cannot be read.
    """
    run = Path(run)
    volume, pixel_size_A = read_volume(run / "map.mrc")
    mask = run / "mask.mrc"
    inside = volume * read_volume(mask)[0] if mask.is_file() else volume
    level = otsu_threshold(inside.astype("f8"))
    names = [name for name in COLOURS if (run / name).is_file()]
    lines = [
        f"# {len(volume)} voxels of {pixel_size_A:.4g} Å; #1 is the map, the half maps are hidden: show #2,3 models",
        "set bgColor white",
    ]
    for number, name in enumerate(names, start=1):
        lines.append(f"open {name} id {number}")
        lines.append(f"volume #{number} style surface step 1 level {level:.6g} color {COLOURS[name]}")
    hidden = [*range(2, len(names) + 1)]
    spread = read_spread(run)
    if spread is not None and not spread.is_even:
        last = len(names) + 1
        middle_A = (spread.finest_A + spread.coarsest_A) / 2
        palette = f"{spread.finest_A:.2f},#2166ac:{middle_A:.2f},#f7f7f7:{spread.coarsest_A:.2f},#b2182b"
        lines.append(f"open {FILE} id {last}")
        lines.append(f"color sample #1 map #{last} palette {palette}")
        hidden.append(last)
    if hidden:
        lines.append(f"hide #{','.join(map(str, hidden))} models")
    lines += ["lighting soft", "graphics silhouettes true width 1.5", "view #1", ""]
    write_text_atomically(run / SCRIPT, "\n".join(lines))

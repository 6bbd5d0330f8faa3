"""A particle file with other optics than it tells: what a fit has found, in the columns that RELION reads."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hoarfrost.io.aberrations_star import EVEN, ODD, TILTS, AberrationTable
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star import StarTable
from hoarfrost.io.star_columns import Floats, Integers, integer_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.io.text_column import TextColumn


def with_fitted_optics(table: ParticleTable, defocus: Mapping[str, Floats], fitted: AberrationTable) -> ParticleTable:
    """The table with other columns of the defocus, each (n,), and other aberrations.

    Aberrations go to ``data_optics`` where all particles of each optics group have the same, else beside the particles.
    """
    star = table.star
    particles, optics = particle_table(star), star.tables.get("optics")
    columns = {**particles.columns, **{name: _texts(values) for name, values in defocus.items()}}
    named = (*TILTS, ODD, EVEN)
    rows = None if optics is None else _row_of_each_group(table, optics, fitted.group)
    columns = {name: values for name, values in columns.items() if name not in named}
    changed = {}
    if optics is not None:
        # A column beside the particles is not looked for where there is one of groups.
        of_groups = {name: values for name, values in optics.columns.items() if name not in named}
        of_groups |= {} if rows is None else dict(_columns(fitted, rows))
        changed[optics.name] = dataclasses.replace(optics, columns=of_groups)
    if rows is None:
        columns |= dict(_columns(fitted, fitted.group))
    changed[particles.name] = dataclasses.replace(particles, columns=columns)
    return dataclasses.replace(table, star=dataclasses.replace(star, tables={**star.tables, **changed}))


def _row_of_each_group(table: ParticleTable, optics: StarTable, group: Integers) -> Integers | None:
    """Which of the fitted aberrations each row of ``data_optics`` has, or None where some has several.

    Rows without a particle have the first.
    """
    rows = []
    for number in integer_column(table.star.path, optics, "rlnOpticsGroup").tolist():
        found = np.unique(group[table.optics.optics_group == number])
        if len(found) > 1:
            return None
        rows.append(int(found[0]) if len(found) else 0)
    return np.array(rows, np.int64)


def _columns(fitted: AberrationTable, rows: Integers) -> Iterator[tuple[str, Sequence[str]]]:
    """The columns of those rows (m,) of the aberrations that are not zero everywhere."""
    if fitted.beam_tilt_mrad.any():
        for name, values in zip(TILTS, fitted.beam_tilt_mrad[rows].T, strict=True):
            yield name, _texts(values)
    for name, lists in ((ODD, fitted.odd), (EVEN, fitted.even)):
        if lists.any():
            texts = [f"[{','.join(f'{number:.7g}' for number in numbers)}]" for numbers in lists.tolist()]
            yield name, TextColumn(texts[row] for row in rows.tolist())


def _texts(values: Floats) -> TextColumn:
    return TextColumn(f"{value:.6f}" for value in values.tolist())

"""A particle file with other optics than it tells: what a fit has found, in the columns that RELION reads."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from hoarfrost.io.aberrations_star import EVEN, ODD, TILTS, AberrationTable
from hoarfrost.io.magnification_star import COLUMNS as MAGNIFICATION
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star import StarTable
from hoarfrost.io.star_columns import Floats, Integers, integer_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.io.text_column import TextColumn


def with_fitted_optics(
    table: ParticleTable, defocus: Mapping[str, Floats], fitted: AberrationTable, magnification: Floats
) -> ParticleTable:
    """The table with other columns of the defocus, each (n,), other aberrations, and another magnification (n, 2, 2).

    Those of groups go to ``data_optics`` where all particles of each have the same, else beside the particles.
    """
    star = table.star
    particles, optics = particle_table(star), star.tables.get("optics")
    columns = {**particles.columns, **{name: _texts(values) for name, values in defocus.items()}}
    new = partial(_columns, fitted, magnification)
    named = [TILTS[0], TILTS[1], ODD, EVEN]
    named += [] if np.array_equal(magnification, table.optics.magnification) else [*MAGNIFICATION]
    columns = {name: values for name, values in columns.items() if name not in named}
    told = np.concatenate([fitted.group[:, None], magnification.reshape(-1, 4)], axis=1)
    members = None if optics is None else _particle_of_each_group(table, optics, told)
    changed = {}
    if optics is not None:
        # A column beside the particles is not looked for where there is one of groups.
        of_groups = {name: values for name, values in optics.columns.items() if name not in named}
        of_groups |= {} if members is None else {name: of for name, of in new(members) if name in named}
        changed[optics.name] = dataclasses.replace(optics, columns=of_groups)
    if members is None:
        columns |= {name: of for name, of in new(np.arange(table.n)) if name in named}
    changed[particles.name] = dataclasses.replace(particles, columns=columns)
    return dataclasses.replace(
        table,
        star=dataclasses.replace(star, tables={**star.tables, **changed}),
        optics=dataclasses.replace(table.optics, magnification=magnification),
    )


def _particle_of_each_group(table: ParticleTable, optics: StarTable, told: Floats) -> Integers | None:
    """A particle of each row of ``data_optics``, or None where particles of some differ in what is `told` (n, m).

    For a row without a particle the first of all.
    """
    members = []
    for number in integer_column(table.star.path, optics, "rlnOpticsGroup").tolist():
        own = np.flatnonzero(table.optics.optics_group == number)
        if len(np.unique(told[own], axis=0)) > 1:
            return None
        members.append(int(own[0]) if len(own) else 0)
    return np.array(members, np.int64)


def _columns(fitted: AberrationTable, magnification: Floats, members: Integers) -> Iterator[tuple[str, Sequence[str]]]:
    """The columns of some particles (m,): aberrations where there are any, and the magnification."""
    group = fitted.group[members]
    if fitted.beam_tilt_mrad.any():
        for name, values in zip(TILTS, fitted.beam_tilt_mrad[group].T, strict=True):
            yield name, _texts(values)
    for name, lists in ((ODD, fitted.odd), (EVEN, fitted.even)):
        if lists.any():
            texts = [f"[{','.join(f'{number:.7g}' for number in numbers)}]" for numbers in lists.tolist()]
            yield name, TextColumn(texts[row] for row in group.tolist())
    for name, values in zip(MAGNIFICATION, magnification[members].reshape(-1, 4).T, strict=True):
        yield name, _texts(values)


def _texts(values: Floats) -> TextColumn:
    return TextColumn(f"{value:.6f}" for value in values.tolist())

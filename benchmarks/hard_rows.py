"""The rows of runs on hard sets, in a JSON file that grows, and the table that sums them up."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from hoarfrost.errors import DataError
from hoarfrost.io.atomic import write_text_atomically
from judgement import VERDICTS, Row, verdict

KEYS = ("set", "snr", "seed", "version")
# Medians in the table, in Å, nats and seconds.
FIGURES = {
    "FSC 0.5": "fsc_05_A",
    "true poses": "true_poses_fsc_05_A",
    "claimed": "claimed_A",
    "beyond sphere": "beyond_sphere",
    "gap": "gap",
    "CPU s": "cpu_seconds",
}


def key(row: Row) -> tuple[object, ...]:
    """What makes a run another one: its set, the name of its SNR, its seed and the version of the program."""
    return tuple(row[name] for name in KEYS)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file.

    Raises DataError for a file of something else.
    """
    if not path.is_file():
        return []
    try:
        rows: list[Row] = json.loads(path.read_text())["runs"]
        for row in rows:
            key(row)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(path, expected="rows of runs on hard sets", found="something else") from error
    return rows


def write_rows(path: Path, rows: Sequence[Row], about: dict[str, object]) -> None:
    """Write the rows, and what all of them share, whole or not at all."""
    write_text_atomically(path, json.dumps({**about, "runs": list(rows)}, indent=1, ensure_ascii=False) + "\n")


def with_row(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows with another, in place of one of the same run."""
    return [*(other for other in rows if key(other) != key(row)), row]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table with a line for each version, set and SNR, in the order of the rows."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["version"], row["set"], row["snr"]), []).append(row)
    heads = ["version", "set", "SNR", "runs", *VERDICTS, *FIGURES]
    lines = [heads, ["---"] * 3 + ["--:"] * (len(heads) - 3)]
    for names, group in groups.items():
        verdicts = [verdict(row) for row in group]
        counts = [str(verdicts.count(name) or "") for name in VERDICTS]
        lines.append([*map(str, names), str(len(group)), *counts, *(median(group, name) for name in FIGURES.values())])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def median(rows: Sequence[Row], name: str) -> str:
    """The median of a figure over the rows that have it."""
    values = [float(str(row[name])) for row in rows if row.get(name) is not None]
    if not values:
        return ""
    found = statistics.median(values)
    return f"{found:.0f}" if found >= 100 else f"{found:.2g}" if abs(found) < 1 else f"{found:.1f}"

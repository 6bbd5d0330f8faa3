"""The log of a run: one JSON object a line."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from hoarfrost.errors import UsageError
from hoarfrost.reconstruction.watch.events import Event, EventLog

EVENT = Event(
    iteration=3,
    start=0,
    stage=0,
    r_max=6.0,
    resolution_A=42.5,
    batch_nll=123.25,
    nll=120.5,
    nll_standard_error=0.5,
    nll_gain=4.0,
    ess=17.0,
    step=0.3,
    seconds=1.5,
    image_gradients=300,
    fraction_done=0.1,
)


def as_read(event: Event) -> dict[str, Any]:
    """JSON has lists, no tuples."""
    return dataclasses.asdict(event) | {"doubts": list(event.doubts)}


def test_every_event_is_a_line_that_json_reads(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    second = dataclasses.replace(EVENT, iteration=4, message="a “message”\nof two lines")
    log.write(EVENT)
    assert json.loads(path.read_text()) == as_read(EVENT)  # there at once
    log.write(second)
    log.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [as_read(event) for event in (EVENT, second)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_null(tmp_path: Path, value: float) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(dataclasses.replace(EVENT, nll_standard_error=value, nll=None))
    log.close()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads((tmp_path / "events.jsonl").read_text(), parse_constant=refuse)
    assert record["nll_standard_error"] is None
    assert record["nll"] is None
    assert record["step"] == 0.3


def test_a_log_that_cannot_be_opened_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*events\.jsonl: No such file"):
        EventLog(tmp_path / "none" / "events.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_the_users_error_and_closing_hides_nothing() -> None:
    log = EventLog(Path("/dev/full"))
    with pytest.raises(UsageError, match="cannot write /dev/full: No space left"):
        log.write(EVENT)
    log.close()

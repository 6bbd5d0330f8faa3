"""Naming any torch optimiser."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.optim.registry import Facts
from hoarfrost.optim.third_party import find_method

FACTS = Facts(largest_curvature=1.0, n_batches=1)


def build(text: str, rate: float = 0.25) -> torch.optim.Optimizer:
    return find_method(text).build([torch.nn.Parameter(torch.zeros(2))], rate, FACTS)


@pytest.mark.parametrize("text", ["torch.optim.Adam", "torch.optim:Adam", "torch.optim.Adam:lr=auto"])
def test_a_class_is_found_by_its_path_and_takes_the_rate_that_is_found_for_it(text: str) -> None:
    spec = find_method(text)
    assert (spec.name, spec.title, spec.base_rate, spec.search) == (text, "Adam", "line", True)
    optimiser = build(text)
    assert isinstance(optimiser, torch.optim.Adam)
    assert optimiser.param_groups[0]["lr"] == 0.25


def test_options_are_passed_on() -> None:
    optimiser = build("torch.optim.Adam:lr=0.5,betas=(0.5, 0.75),amsgrad=True")
    group = optimiser.param_groups[0]
    assert (group["lr"], group["betas"], group["amsgrad"]) == (0.5, (0.5, 0.75), True)
    assert not find_method("torch.optim.Adam:lr=0.5").search


def test_a_method_of_ours_may_be_given_its_rate() -> None:
    assert find_method("sgd").base_rate == "curvature"
    spec = find_method("sgd:lr=0.5")
    assert spec.title == "SGD, lr 0.5"
    assert not spec.search
    assert build("sgd:lr=0.5", rate=1.0).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("magic", "magic is no method; known are sgd"),
        ("no_such_module:Thing", "cannot import no_such_module"),
        ("torch.optim.Magic", "torch.optim has no Magic"),
        ("torch.nn.Linear", "Linear is not a torch.optim.Optimizer"),
        ("torch.optim.Adam:lr=-1", "lr must be auto or a positive number, found -1"),
        ("torch.optim.Adam:lr=1,__import__('os')", "options must read name=value"),
        ("torch.optim.Adam:lr=1)+f(a=2", "options must read name=value"),
        ("torch.optim.Adam:lr=", "options must read name=value"),
        ("torch.optim.Adam:eps=print(1)", "eps must be a number"),
        ("sgd:momentum=0.9", "only lr can be given"),
        ("a:b:c", "expected a method's name"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        find_method(text)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


class NoRate(torch.optim.Optimizer):
    def __init__(self, params: list[torch.Tensor]) -> None:
        super().__init__(params, {})


def test_a_class_without_a_rate_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "NoRate", NoRate, raising=False)
    assert not find_method("torch.optim.NoRate").search
    assert isinstance(build("torch.optim.NoRate"), NoRate)
    with pytest.raises(ValueError, match="NoRate has no lr"):
        find_method("torch.optim.NoRate:lr=1")

"""A device that stands in for a GPU: its tensors are the CPU's, but nobody may mix them with those of the CPU.

It shows on any machine that what is made for a device is all on that device, and that what runs there is not what is
compiled for the CPU. PyTorch lets such a device be written in Python: an operation on tensors of it, which wrap others,
is done on those others, and the result is wrapped again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import hoarfrost
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel, box_of
from hoarfrost.model.all_poses.marginal import likely_poses, marginalise_with_statistics
from hoarfrost.model.few_poses.modes import Modes
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.reconstruction import run
from hoarfrost.reconstruction.estimate.m_step import MStep
from hoarfrost.reconstruction.refinement.e_step import Effort, LocalEStep
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.symmetry.point_group import PointGroup

NAME = "another"
# As with a GPU, these may take a tensor of the CPU, and an index may lie there.
MAY_MIX = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}

_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)


class AnotherTensor(Tensor):
    """A tensor of that device, in place of which `inner`, one of the CPU, is worked with."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> AnotherTensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made: AnotherTensor = Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=DEVICE, **layout
        )
        return made

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @property
    def data(self) -> Tensor:
        return AnotherTensor(self.inner)

    @data.setter
    def data(self, value: AnotherTensor) -> None:
        self.inner = value.inner

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor of another device has to be moved to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(function, args, kwargs or {})


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, AnotherTensor) else value


def _carry_out(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, AnotherTensor)]
    mixed = any(not isinstance(tensor, AnotherTensor) and tensor.dim() > 0 for tensor in tensors)
    if mixed and (name not in MAY_MIX or (name.startswith("aten::index") and not isinstance(args[0], AnotherTensor))):
        raise RuntimeError(f"{name}: some tensors are on the CPU, and some on another device")
    if name == "aten::_conj":
        # A tensor that is only marked as conjugate would lose its mark here.
        return AnotherTensor(torch.conj_physical(args[0].inner))
    here = True
    if kwargs.get("device") is not None:
        here = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name == "aten::copy_":
        here = isinstance(args[0], AnotherTensor)
    result = function(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not here:
        return result
    known = {id(tensor.inner): tensor for tensor in ours}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, AnotherTensor):
            return value
        return known[id(value)] if id(value) in known else AnotherTensor(value)

    return tree_map(wrapped, result)


def _empty(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return AnotherTensor(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return AnotherTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _inner(target).copy_(_inner(source))
    return target


def _made_by(function: Any) -> Any:
    """What would be made empty, and grow unseen by what wraps it."""

    def make(*args: Any, dtype: Any = None, **_: Any) -> Tensor:
        return AnotherTensor(function(*args) if dtype is None else function(*args, dtype=dtype))

    return make


# What makes tensors out of nothing.
LIBRARY = torch.library.Library("aten", "IMPL")
for operation, made_by in {
    "empty.memory_format": _empty,
    "empty_strided": _empty_strided,
    "_copy_from": _copy_from,
    "arange": _made_by(torch.arange),
    "arange.start": _made_by(torch.arange),
    "arange.start_step": _made_by(torch.arange),
    "eye": _made_by(torch.eye),
    "linspace": _made_by(torch.linspace),
    "triu_indices": _made_by(torch.triu_indices),
}.items():
    LIBRARY.impl(operation, made_by, "PrivateUse1")


DEVICES = [
    DEVICE,
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
N_IMAGES = 6


def test_the_device_refuses_tensors_of_the_cpu() -> None:
    here, there = torch.arange(3.0), torch.arange(3.0).to(DEVICE)
    assert (there + 1).tolist() == [1, 2, 3]
    assert (there.exp().device, there.cpu().device) == (DEVICE, here.device)
    for mixed in (lambda: here + there, lambda: there @ here, lambda: here[there.long()]):
        with pytest.raises(RuntimeError, match=r"on the CPU, and some on another|two devices|same device"):
            mixed()
    with pytest.raises(TypeError, match="moved to the CPU first"):
        there.numpy()
    product = there * torch.complex(here, here).to(DEVICE).conj()
    assert product.cpu().tolist() == [0, 1 - 1j, 4 - 4j]
    assert torch.arange(1, 7, 2, device=DEVICE).shape == (3,)


class Problem:
    """Images of noise and a map on a device, the same whatever the device."""

    def __init__(self, device: Any, group: str) -> None:
        generator = named_generator(0, "another device")
        turn = random_rotations(1, generator)[0]
        self.band = BandModel(32, 4.0, PosePrior(1.5, 3.0), turn, group=PointGroup(group), device=device)
        shape = N_IMAGES, self.band.disc.size
        self.images = WhitenedImages(
            torch.randn(shape, dtype=torch.complex64, generator=generator).to(device),
            torch.rand(shape, generator=generator).to(device),
            torch.zeros(N_IMAGES, dtype=torch.float64).to(device),
        )
        side = self.band.box
        self.volume = (3 * torch.randn(side, side, side, generator=generator)).to(device)

    def sums(self) -> dict[str, Tensor]:
        """What sums over all poses give."""
        slices = self.band.operator.slices(self.volume)
        posterior, statistics = marginalise_with_statistics(self.images, slices, self.band.poses)
        quadratic = self.band.quadratic(statistics, N_IMAGES)
        volume = self.volume.clone().requires_grad_()
        self.band.nll(volume, self.images).backward()  # type: ignore[no-untyped-call]
        of_two = torch.stack([self.volume, self.volume.flip(0)])
        log_none = posterior.log_evidence - 0.5
        log_shares = torch.tensor([-0.5, -0.9])
        mixture, of_classes = self.band.mixture_with_statistics(of_two, self.images, log_shares, log_none)
        assert volume.grad is not None
        return {
            "slices": slices,
            "log-evidence": posterior.log_evidence,
            "effective poses": posterior.ess,
            "best node": likely_poses(self.images, slices, self.band.poses, 1.0).node,
            "numerator": statistics.numerator,
            "weight": statistics.weight,
            "b": quadratic.linear,
            "kernel of T": quadratic.kernel,
            "gradient": volume.grad,
            "likely poses": likely_poses(self.images, slices, self.band.poses, 0.01).probability.sort().values,
            "classes": mixture.probability,
            "numerator of the second": of_classes[1].numerator,
            "map": MStep(self.band.support(0.8), positive=False)(quadratic, torch.zeros_like(self.volume)),
        }

    def refined(self) -> dict[str, Tensor]:
        """What refinement's E-step and its statistics give, and the map that these ask for."""
        device, disc, prior = self.volume.device, FourierDisc(32, 6.0), PosePrior(1.5, 3.0)
        generator = named_generator(1, "another device")
        shape = N_IMAGES, disc.size
        images = WhitenedImages(
            torch.randn(shape, dtype=torch.complex64, generator=generator).to(device),
            torch.rand(shape, generator=generator).to(device),
            torch.zeros(N_IMAGES, dtype=torch.float64).to(device),
        )
        e_step = LocalEStep(self.volume, disc, self.band, prior, Effort(8, 1e-3, 64), generator)
        searched = torch.ones(N_IMAGES, dtype=torch.bool, device=device)
        found = e_step(images, Modes.none(N_IMAGES, 8, device), searched)
        box = box_of(disc.r_max)
        statistics = LocalStatistics(box, disc.box, device, self.band.group)
        statistics.add(e_step.model, images, found.draws)
        quadratic = statistics.quadratic(N_IMAGES)
        inside = (radius_grid(box, 3, device) < 0.4 * box).float()
        return {
            "log-evidence": found.log_evidence,
            "best of the modes": found.modes.log_mass[:, 0],
            "b": quadratic.linear,
            "kernel of T": quadratic.kernel,
            "map": MStep(inside, positive=False)(quadratic, torch.zeros_like(quadratic.linear)),
        }


def assert_the_same(found: dict[str, Tensor], expected: dict[str, Tensor], device: Any, tolerance: float) -> None:
    for name, values in expected.items():
        assert found[name].device.type == torch.device(device).type, name
        apart = float((found[name].cpu() - values).abs().max()) / float(values.abs().max())
        assert apart < tolerance, f"{name}: {apart}"


@pytest.mark.parametrize("group", ["C1", "D2"])
@pytest.mark.parametrize("device", DEVICES)
def test_sums_over_all_poses_stay_on_their_device_and_are_those_of_the_cpu(device: Any, group: str) -> None:
    assert_the_same(Problem(device, group).sums(), Problem("cpu", group).sums(), device, 2e-3)


@pytest.mark.parametrize("group", ["C1", "D2"])
@pytest.mark.parametrize("device", DEVICES)
def test_refinement_stays_on_its_device_and_is_that_of_the_cpu(device: Any, group: str) -> None:
    assert_the_same(Problem(device, group).refined(), Problem("cpu", group).refined(), device, 1e-2)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a drawn map of 16 voxels."""
    folder = tmp_path_factory.mktemp("another")
    write_volume(folder / "truth.mrc", make_phantom(16, seed=3), 12.0)
    return hoarfrost.simulate(folder / "truth.mrc", folder / "data", n_particles=80, snr=0.5, seed=1).particles_path


def last_nll(folder: Path) -> float:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return float([event["nll"] for event in events if event["nll"] is not None][-1])


@pytest.mark.parametrize("options", [{"epochs": 3}, {"epochs": 1, "classes": 2}, {"epochs": 1, "method": "sgd"}])
@pytest.mark.parametrize("device", DEVICES)
def test_a_run_there_is_that_of_the_cpu(
    device: Any, options: dict[str, Any], particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"starts": 1, "device": "cpu", **options}
    hoarfrost.reconstruct(particles, tmp_path / "cpu", **chosen)
    resolve = run.resolve
    monkeypatch.setattr(run, "resolve", lambda *a, **k: resolve(*a, **k).model_copy(update={"device": str(device)}))
    hoarfrost.reconstruct(particles, tmp_path / "there", **chosen)
    assert last_nll(tmp_path / "there") == pytest.approx(last_nll(tmp_path / "cpu"), abs=0.05)
    name = "class001.mrc" if "classes" in options else "map.mrc"
    here, there = (read_volume(tmp_path / folder / name)[0] for folder in ("cpu", "there"))
    assert np.linalg.norm(here - there) < 0.03 * np.linalg.norm(here)

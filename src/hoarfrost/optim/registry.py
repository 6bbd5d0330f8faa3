"""The table of optimisers: what each is called, where it comes from, and how its base step follows from the curvature.

Only methods that take gradients are here. `auto`, which takes statistics, is `hoarfrost.optim.online_em`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from hoarfrost.optim.adagrad import AdaGrad
from hoarfrost.optim.adam import Adam
from hoarfrost.optim.hessian_free import HessianFree
from hoarfrost.optim.momentum import Momentum
from hoarfrost.optim.nesterov import Nesterov
from hoarfrost.optim.online_lbfgs import OnlineLBFGS
from hoarfrost.optim.sag import SAG
from hoarfrost.optim.sgd import ScheduledSGD
from hoarfrost.optim.tonga import TONGA

# λ of Hessian-free starts at this share of the largest curvature, and then follows the loss.
FIRST_DAMPING = 0.1

# The step for which Schmidt et al. prove convergence: old gradients belong to another map, so a longer one diverges.
SAG_SHARE = 1 / 16

BaseRate = Literal["curvature", "line", "unit"]
"""Where a base step comes from: 1/λ_max; the minimum of a quadratic along the method's own first step; or 1."""


@dataclass(frozen=True)
class Facts:
    """What a method may need to know of the objective: λ_max of its Hessian, and the number of minibatches."""

    largest_curvature: float
    n_batches: int


@dataclass(frozen=True)
class MethodSpec:
    """One method. `build(parameters, rate, facts)` makes its optimiser; `search`: the base rate needs refining."""

    name: str
    title: str
    build: Callable[[list[Tensor], float, Facts], Optimizer]
    base_rate: BaseRate
    search: bool = False
    batch_size: int = 100


METHODS: dict[str, MethodSpec] = {
    spec.name: spec
    for spec in (
        MethodSpec("sgd", "SGD", lambda p, rate, _: ScheduledSGD(p, lr=rate), "curvature"),
        MethodSpec("momentum", "Momentum", lambda p, rate, _: Momentum(p, lr=rate), "curvature"),
        MethodSpec("nesterov", "Nesterov", lambda p, rate, _: Nesterov(p, lr=rate), "curvature"),
        MethodSpec("adagrad", "AdaGrad", lambda p, rate, _: AdaGrad(p, lr=rate), "line", search=True),
        MethodSpec("tonga", "TONGA", lambda p, rate, _: TONGA(p, lr=rate), "curvature", search=True),
        MethodSpec(
            "olbfgs",
            "oLBFGS",
            lambda p, rate, facts: OnlineLBFGS(p, lr=rate, first_step=1 / facts.largest_curvature),
            "unit",
            search=True,
        ),
        MethodSpec(
            "hf",
            "Hessian-free",
            lambda p, rate, facts: HessianFree(p, lr=rate, damping=FIRST_DAMPING * facts.largest_curvature),
            "unit",
            batch_size=300,
        ),
        MethodSpec(
            "sag", "SAG", lambda p, rate, facts: SAG(p, lr=SAG_SHARE * rate, n_batches=facts.n_batches), "curvature"
        ),
        MethodSpec("adam", "Adam", lambda p, rate, _: Adam(p, lr=rate), "line", search=True),
    )
}
"""The seven of Punjani & Brubaker in their order, then SAG and Adam."""

PUBLISHED = ("sgd", "momentum", "nesterov", "adagrad", "tonga", "olbfgs", "hf")
"""Names of the seven methods of the published comparison."""

"""The names of all methods, without loading any: the command line needs them before torch."""

from typing import Literal

MethodName = Literal["auto", "sgd", "momentum", "nesterov", "adagrad", "tonga", "olbfgs", "hf", "sag", "adam"]
"""`auto`, and the names of `hoarfrost.optim.registry.METHODS`."""

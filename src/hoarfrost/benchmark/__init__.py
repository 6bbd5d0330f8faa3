"""Optimisers compared on one data set from the same random starts: the verb `benchmark`."""

from hoarfrost._verbs import make_callable

make_callable(__name__)

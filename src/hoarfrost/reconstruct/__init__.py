"""The reconstruction loop and what it needs."""

from hoarfrost._verbs import make_callable

make_callable(__name__)

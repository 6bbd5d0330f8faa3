"""Images of a known map, by the same forward model."""

from hoarfrost._verbs import make_callable

make_callable(__name__)

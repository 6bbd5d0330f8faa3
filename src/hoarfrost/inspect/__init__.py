"""A look at particles before any long work: what file and images say, what looks wrong, what it will take."""

from hoarfrost._verbs import make_callable

make_callable(__name__)

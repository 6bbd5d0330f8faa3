"""Pages and pictures of runs and studies, made from their folders alone."""

from hoarfrost._verbs import make_callable

make_callable(__name__)

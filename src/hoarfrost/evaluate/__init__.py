"""How good is a map: alignment, FSC, pose errors."""

from hoarfrost._verbs import make_callable

make_callable(__name__)

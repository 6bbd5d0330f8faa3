"""``python -m hoarfrost``: the same as the command ``hoarfrost``."""

from __future__ import annotations

import sys

from hoarfrost.cli import main

if __name__ == "__main__":
    sys.exit(main())

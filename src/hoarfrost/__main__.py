"""``python -m hoarfrost``: the same as the command ``hoarfrost``."""

import sys

from hoarfrost.cli import main

if __name__ == "__main__":
    sys.exit(main())

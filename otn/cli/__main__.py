"""`python -m otn.cli`: the same as `otn`."""

from __future__ import annotations

import sys

from otn.cli import main

if __name__ == "__main__":
    sys.exit(main())

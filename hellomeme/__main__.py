"""`python -m hellomeme`: see `hellomeme.cli`."""

import sys

from .cli import main

sys.exit(main())

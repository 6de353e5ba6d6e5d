"""`python -m hellomeme`: see `hellomeme.cli.main`."""

import sys

from .cli.main import main

sys.exit(main())

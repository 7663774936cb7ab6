"""`python -m simdistill`, as the `simdistill` command."""

import sys

from simdistill.cli import main

sys.exit(main())

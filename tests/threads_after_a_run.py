"""What test_distributed starts in two processes: the command line with the words given, then a look at the threads."""

import sys
from pathlib import Path

from simdistill.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    left = [name for name in names if "gloo" in name]
    sys.exit(code or ", ".join(left) or None)

"""Training speed of the engines beside torch: `gatewise bench train`, under the name that it had before.

    python benchmarks/engines.py                                  # all sizes
    python benchmarks/engines.py --sizes 35,20,200,2 --rounds 30 --threads 2 --json
    python benchmarks/engines.py --contestants gatewise-gates --cell gru

How it measures: docs/benchmarks.md.
"""

from __future__ import annotations

import sys

from gatewise.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "train", *sys.argv[1:]]))

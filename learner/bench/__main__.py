"""The command line of the learner's bench where penstock's own, which needs more packages, is not installed."""

from __future__ import annotations

import argparse

from penstock.errors import PenstockError
from penstock.learner.allocator import keep_freed_memory


def main() -> None:
    keep_freed_memory()  # before torch is imported
    from penstock.learner.bench.page import SECONDS, SECTIONS, run

    parser = argparse.ArgumentParser(prog="python -m penstock.learner.bench", description=run.__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is one, when left out")
    parser.add_argument("--case", choices=tuple(SECTIONS), help="this section alone, which is then only printed")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"time of each arm ({SECONDS:g})")
    arguments = parser.parse_args()
    try:
        run(arguments.device, arguments.case, arguments.seconds)
    except PenstockError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

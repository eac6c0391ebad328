"""``python -m tests.fuzz``: a campaign, or its report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .campaign import batches_of, campaign
from .forms import ALL
from .report import write_report


def main() -> int:
    """Exit code 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch; the others follow")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--backends",
        default="",
        help=f"those that each spec is tried on, of {', '.join(ALL)}; without, one by its share",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/fuzz"), help="takes up what is there"
    )
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument(
        "--report", action="store_true", help="of what is there, no further examples"
    )
    given = parser.parse_args()
    if not given.report:
        backends = tuple(filter(None, given.backends.split(",")))
        campaign(batches_of(given.examples, given.seed, backends), given.out, given.jobs)
    data = write_report(given.out, not given.no_shrink)
    failed = len(data["failures"])
    print(f"{data['examples']} examples, {failed} kinds of failure: {given.out}/report.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

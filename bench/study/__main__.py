"""python -m study run STREAM ...   tunes rivals, then runs all lines; goes on where it was stopped
python -m study report STREAM ... compares them, as docs/decentralised.md says

In the folder bench. Results go to results/study, the report to the standard output.
"""

from __future__ import annotations

import argparse
import sys

from study.plan import STREAMS
from study.report import report
from study.stages import run


def main() -> int:
    """What the words of the command line ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument(
        "streams", nargs="*", metavar="STREAM", help=f"of {', '.join(STREAMS)} (default: all)"
    )
    parser.add_argument("--out", default="results/study")
    given = parser.parse_args()
    for name in given.streams:
        if name not in STREAMS:
            parser.error(f"no stream {name}; there are {', '.join(STREAMS)}")
    for name in given.streams or STREAMS:
        if given.what == "run":
            run(name, given.out)
        else:
            print(report(name, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())

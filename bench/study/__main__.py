"""python -m study run STREAM ...   tunes rivals, then runs all lines; goes on where it was stopped
python -m study report STREAM ... compares them, as docs/decentralised.md says
python -m study figure STREAM ... draws how much better the whole is than each rival, and than each variant
python -m study cost              what an example costs under each scope and piece

In the folder bench. Results go to a folder for each stream; the report goes to the standard output, and what
it was made from, a row a run, to STREAM.csv (of a later question STREAM-QUESTION.csv) and STREAM-trials.csv
beside.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.comparison import Comparison
from study.cost import cost
from study.figure import draw
from study.plan import QUESTIONS, STREAMS
from study.record import write
from study.report import report
from study.stages import NotRun, run


def main() -> int:
    """What the words of the command line ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report", "figure", "cost"))
    parser.add_argument(
        "streams",
        nargs="*",
        metavar="STREAM",
        help=f"of {'; '.join(STREAMS)} (default: all of the question)",
    )
    parser.add_argument(
        "--out", default="../results/study", help="the folder of all of it (default: %(default)s)"
    )
    parser.add_argument("--question", default="first", choices=tuple(QUESTIONS), help="(default: first)")
    given = parser.parse_args()
    for name in given.streams:
        if name not in STREAMS:
            parser.error(f"no stream {name}; there are {'; '.join(STREAMS)}")
    if given.what == "cost":
        if given.streams:
            parser.error(f"cost is of no stream, got {'; '.join(given.streams)}")
        print("\n".join(cost()))
        return 0
    names = given.streams or list(QUESTIONS[given.question].streams)
    if given.what == "run":
        for name in names:
            run(name, given.out, given.question)
        return 0
    comparisons = []
    for name in names:
        try:
            comparisons.append(Comparison(name, given.out, given.question))
        except NotRun as why:
            if given.streams:
                raise
            print(f"{why}; left out", file=sys.stderr)
    if not comparisons:
        return 1
    if given.what == "figure":
        for role in ("rival", "variant"):
            draw(comparisons, Path(given.out) / f"{given.question}-{role}s.png", role)
        return 0
    for comparison in comparisons:
        write(comparison, given.out)
        print(report(comparison))
    return 0


if __name__ == "__main__":
    sys.exit(main())

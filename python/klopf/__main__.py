"""`python -m klopf` is the command `klopf`."""

from klopf.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

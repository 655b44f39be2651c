"""What the comparison runs: the cases, one file for each library, and the pipe to the worker processes."""

"""Settings for all tests."""

import os

# NumPy's matrix products wait actively for a second thread, which makes them slow on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

"""Settings for all tests, and the devices that they run on."""

import os

# NumPy's matrix products wait actively for a second thread, which makes them slow on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Iterator

import pytest

import klopf as kl


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where networks live that do not say where: modules ask for it with `usefixtures`."""
    name: str = request.param
    if name not in kl.devices():
        pytest.skip(f"no {name} device")
    if name != "cpu":
        made = kl.Network.__init__

        def make(network: kl.Network, *arguments: object, **options: object) -> None:
            made(network, *arguments, **{"device": name, **options})  # type: ignore[arg-type]

        monkeypatch.setattr(kl.Network, "__init__", make)
        monkeypatch.setattr(kl.Learner.load.__func__, "__defaults__", (None, name, "float32"))  # type: ignore[attr-defined]
    yield name

"""Checkpoints: exact, checksummed, atomic, and one clear line for every broken file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import klopf as kl

pytestmark = pytest.mark.usefixtures("device")


def small(runs: int = 2) -> kl.Learner:
    net = kl.Network(
        [kl.Linear(4), kl.LeakyReLU(0.2), kl.Linear(2)], input_shape=(3,), runs=runs, init="lecun"
    )
    rules = [kl.ContinualBackprop(replacement_rate=[0.1, 0.2], init="xavier"), kl.ShrinkAndPerturb()]
    return kl.Learner(net, loss="squared_error", optimizer=kl.Adam(epsilon_at="raw"), rules=rules)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small().save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_settings_come_back(saved: Path) -> None:
    loaded, made = kl.Learner.load(saved), small()
    assert loaded.net.layers == made.net.layers
    assert loaded.optimizer == made.optimizer and loaded.rules == made.rules
    assert (loaded.loss, loaded.net.init, loaded.net.seeds) == ("squared_error", "lecun", [0, 1])


def test_the_same_bytes_every_time(saved: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == saved.read_bytes()


def test_others_can_open_it(saved: Path) -> None:
    from safetensors.numpy import load_file

    assert load_file(saved)["0.weight"].shape == (2, 4, 3)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1])
def test_truncated(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(kl.Error, match="truncated, corrupt or not a safetensors file"):
        kl.Learner.load(saved)


def test_every_flipped_byte_is_found(saved: Path) -> None:
    whole = saved.read_bytes()
    positions = {
        *range(0, 64),
        *np.random.default_rng(0).integers(0, len(whole), 300).tolist(),
        len(whole) - 1,
    }
    for position in positions:
        broken = bytearray(whole)
        broken[position] ^= 4
        saved.write_bytes(broken)
        with pytest.raises(kl.Error):
            kl.Learner.load(saved)


def test_files_of_something_else(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(kl.Error, match="not written by klopf"):
        kl.Learner.load(tmp_path / "other.safetensors")
    kl.checkpoint.write(tmp_path / "mine.safetensors", {"a": np.zeros(3)}, {"x": 1})
    with pytest.raises(kl.Error, match="not a learner"):
        kl.Learner.load(tmp_path / "mine.safetensors")
    with pytest.raises(kl.Error, match="No such file"):
        kl.Learner.load(tmp_path / "nothing.safetensors")


def test_what_does_not_fit_changes_nothing() -> None:
    made = small()
    before = made.state()
    for name, value in [("0.weight", np.zeros((2, 4, 4), np.float32)), ("step", np.zeros(2, np.int32))]:
        with pytest.raises(kl.Error, match=f'"{name}" must be'):
            made.load_state({**before, name: value})
    with pytest.raises(kl.Error, match='"step" is missing'):
        made.load_state({name: value for name, value in before.items() if name != "step"})
    with pytest.raises(kl.Error, match='does not know "nonsense"'):
        made.load_state({**before, "nonsense": np.zeros(2)})
    assert all(value.tobytes() == before[name].tobytes() for name, value in made.state().items())


def test_a_failed_write_keeps_the_earlier_file(saved: Path) -> None:
    import resource

    before, limit = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        with pytest.raises(kl.Error, match=r"cannot write .*File too large"):
            small().save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("before", ["instruction-set level another", "a GPU, tf32"])
def test_another_level_or_device_is_said(saved: Path, before: str) -> None:
    arrays, about = kl.checkpoint.read(saved)
    kl.checkpoint.write(saved, arrays, {**about, "arithmetic": before})
    now = small().net._arithmetic
    hint = r" \(KLOPF_ISA=another would\)" if "level" in before and "level" in now else ""
    with pytest.warns(UserWarning, match=rf"at {before} and goes on at {now}: .*bit for bit{hint}$"):
        kl.Learner.load(saved)

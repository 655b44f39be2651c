"""The engine follows every recorded trajectory of the published implementations: same units, same steps."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import klopf as kl
import twins
from reference import recording
from reference.arrays import relative_error

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = 1e-4
RUNS = 2  # both follow the recording


def follow(recorded: recording.Recording) -> kl.Network:
    """Runs the recording's steps, checks every one, and returns the network."""
    net = twins.engine_network(recorded.layers, recorded.x.shape[2:], RUNS)
    net.load_state_dict(for_all_runs(recorded.initial))
    kind, options = recorded.optimizer
    learner = kl.Learner(
        net,
        loss=recorded.loss_name,
        optimizer=getattr(kl, kind)(**options),
        rules=[kl.ContinualBackprop(**recorded.rule)],
    )
    for step, (x, y) in enumerate(zip(recorded.x, recorded.y, strict=True)):
        out = learner.step(x, y)
        assert relative_error(out.loss, np.full(RUNS, recorded.loss[step])) < TOLERANCE, step
        for group, mask in enumerate(out.replaced):
            check_group(recorded, step, group, np.asarray(mask), net.units[group])
        give_recorded_weights(recorded, step, net)
    return net


def check_group(
    recorded: recording.Recording, step: int, group: int, replaced: NDArray[np.bool_], units: kl.UnitGroup
) -> None:
    """The replaced units, and utility and age of the others, of every run."""
    expected = np.sort(recorded.replaced_at(step, group))
    for run in range(RUNS):
        assert list(np.flatnonzero(replaced[run])) == list(expected), (step, group, run)
        staying = ~replaced[run]
        utility, age = recorded.utility[group][step], recorded.age[group][step]
        # On the scale of the whole layer, replaced units included.
        error = np.abs(units.utility[run] - utility)[staying].max() / np.abs(utility).max()
        assert error < TOLERANCE, (step, group, run)
        assert np.array_equal(units.age[run][staying], age[staying])
        assert not units.utility[run][replaced[run]].any()
        assert not units.age[run][replaced[run]].any()


def give_recorded_weights(recorded: recording.Recording, step: int, net: kl.Network) -> None:
    """Overwrites the engine's own draw of new incoming weights with the recorded one."""
    names = [name for name in recorded.initial if name.endswith("weight")]
    state: dict[str, NDArray[Any]] = net.state_dict()
    for group, name in enumerate(names[:-1]):
        state[name][:, recorded.replaced_at(step, group)] = recorded.incoming_at(step, group)
    net.load_state_dict(state)


def for_all_runs(state: twins.State) -> twins.State:
    return {name: np.stack([np.float32(value)] * RUNS) for name, value in state.items()}


@pytest.mark.parametrize("name", recording.NAMES)
def test_follows_recording(name: str) -> None:
    recorded = recording.read(name)
    state = follow(recorded).state_dict()
    for key, expected in recorded.final.items():
        for run in range(RUNS):
            assert relative_error(state[key][run], expected) < TOLERANCE, (key, run)

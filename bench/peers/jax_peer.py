"""JAX: one jitted step with donated buffers ("step"), or many steps in one jitted call ("scan").

What is fastest on the CPU, all tried: images channels-last, pooling as the maximum over a reshaped array (the
gradient of reduce_window is slow), linear weights as [inputs, outputs], synchronous dispatch, four steps
unrolled in a scan; for few weights and one step a call, all of them in one vector ("packed").
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from peers.cases import Array, Case, Data, Layer, weights_of

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_UNROLL = 4
Tree = Any  # nested lists of arrays
Step = Callable[[Tree, tuple[Array, tuple[Array, ...]]], tuple[Tree, Array]]  # state, batch -> state, loss


def build(case: Case, how: tuple[str, ...], data: Data, threads: int) -> Steps | Scan:
    """threads: come from the environment."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    x = data["x"]
    if x.ndim == 5:
        x = x.transpose(0, 1, 3, 4, 2)
    targets = tuple(data[f"{name}.y"] for name in case.networks)
    weights = [_weights(layers, weights_of(data, name)) for name, layers in case.networks.items()]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    if case.optimizer == "adam":
        state: Tree = [weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.zeros(())]
    else:
        state = [weights, zeros] if case.momentum else [weights]
    step = _step(case)
    if "packed" in how:
        state, step = _packed(state, step)
    return (Scan if "scan" in how else Steps)(step, state, x, targets)


class Steps:
    """One call of Python a step, on batches that are device arrays already."""

    version = jax.__version__
    unit = 1

    def __init__(self, step: Step, state: Tree, x: Array, targets: tuple[Array, ...]) -> None:
        self._step = jax.jit(step, donate_argnums=0)
        self._state = state
        pairs = zip(x, zip(*targets, strict=True), strict=True)
        self._batches = cycle([jax.tree.map(jnp.array, pair) for pair in pairs])

    def losses(self, count: int) -> list[float]:
        return [self.run(1) for _ in range(count)]

    def run(self, steps: int) -> float:
        step, state, loss = self._step, self._state, jnp.zeros(())
        for batch in islice(self._batches, steps):
            state, loss = step(state, batch)
        self._state = jax.block_until_ready(state)
        return float(loss)


class Scan:
    """All data in one call."""

    version = jax.__version__

    def __init__(self, step: Step, state: Tree, x: Array, targets: tuple[Array, ...]) -> None:
        self.unit = len(x)
        self._data = jax.tree.map(jnp.array, (x, targets))
        self._state = state

        def steps(state: Tree, data: Tree) -> Any:
            return jax.lax.scan(step, state, data, unroll=_UNROLL)

        self._steps = jax.jit(steps, donate_argnums=0)

    def losses(self, count: int) -> list[float]:
        first = jax.tree.map(lambda all: all[:count], self._data)
        self._state, losses = self._steps(self._state, first)
        return [float(loss) for loss in losses]

    def run(self, steps: int) -> float:
        losses = jnp.zeros(1)
        for _ in range(steps // self.unit):
            self._state, losses = self._steps(self._state, self._data)
        jax.block_until_ready(self._state)
        return float(losses[-1])


# --- networks -----------------------------------------------------------------------------------------------


def _weights(layers: tuple[Layer, ...], arrays: dict[str, Array]) -> Tree:
    """[weight, bias] of each layer that has some, from PyTorch's order of axes into the one used here."""
    made: list[list[Any]] = []
    filters = 0  # that the next linear layer sees flattened
    for index, (kind, *_) in enumerate(layers):
        if kind not in ("conv", "linear"):
            continue
        weight, bias = arrays[f"{index}.weight"], arrays[f"{index}.bias"]
        if kind == "conv":
            weight, filters = weight.transpose(2, 3, 1, 0), weight.shape[0]
        else:
            if filters:  # positions before channels
                outputs = weight.shape[0]
                weight = weight.reshape(outputs, filters, -1).transpose(0, 2, 1).reshape(outputs, -1)
                filters = 0
            weight = weight.T
        made.append([jnp.array(weight), jnp.array(bias)])
    return made


def _forward(layers: tuple[Layer, ...], weights: Tree, x: Any) -> Any:
    """x: [B, I] or [B, H, W, C].  Returns [B, O]."""
    remaining = iter(weights)
    for kind, *numbers in layers:
        if kind == "conv":
            weight, bias = next(remaining)
            order = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=order) + bias
        elif kind == "linear":
            weight, bias = next(remaining)
            x = x @ weight + bias
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "pool":
            (size,) = numbers
            batch, height, width, channels = x.shape
            x = x.reshape(batch, height // size, size, width // size, size, channels).max((2, 4))
        else:
            x = x.reshape(len(x), -1)
    return x


def _cross_entropy(outputs: Any, labels: Any) -> Any:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1))


def _mse(outputs: Any, targets: Any) -> Any:
    return jnp.mean(jnp.square(outputs - targets))


# --- a step -------------------------------------------------------------------------------------------------


def _step(case: Case) -> Step:
    one = _cross_entropy if case.loss == "cross_entropy" else _mse

    def loss(weights: Tree, x: Any, targets: tuple[Any, ...]) -> Any:
        parts = zip(case.networks.values(), weights, targets, strict=True)
        return sum(one(_forward(layers, own, x), y) for layers, own, y in parts)

    def step(state: Tree, batch: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(state[0], *batch)
        update = _adam if case.optimizer == "adam" else _sgd
        return update(case, state, gradients), value

    return step


def _packed(state: Tree, step: Step) -> tuple[Tree, Step]:
    """The same with all weights in one vector."""
    vector, unpack = ravel_pytree(state)

    def packed(vector: Tree, batch: Any) -> Any:
        state, value = step(unpack(vector), batch)
        return ravel_pytree(state)[0], value

    return vector, packed


def _sgd(case: Case, state: Tree, gradients: Tree) -> Tree:
    velocity = gradients
    if case.momentum:
        velocity = jax.tree.map(lambda v, g: case.momentum * v + g, state[1], gradients)
    weights = jax.tree.map(lambda w, v: w - case.step_size * v, state[0], velocity)
    return [weights, velocity] if case.momentum else [weights]


def _adam(case: Case, state: Tree, gradients: Tree) -> Tree:
    weights, first, second, time = state
    time = time + 1
    correction = jnp.sqrt(1 - _BETA2**time)
    size = case.step_size / (1 - _BETA1**time)
    first = jax.tree.map(lambda m, g: _BETA1 * m + (1 - _BETA1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: _BETA2 * v + (1 - _BETA2) * g * g, second, gradients)
    weights = jax.tree.map(
        lambda w, m, v: w - size * m / (jnp.sqrt(v) / correction + _EPSILON), weights, first, second
    )
    return [weights, first, second, time]

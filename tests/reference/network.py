"""A network and its learner for one run: the loop of forward, loss, backward, optimizer and unit rule."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Integers
from .continual_backprop import ContinualBackprop
from .goals import Goal
from .layers import Layer
from .losses import Loss
from .optimizers import Optimizer
from .recruitment import Recruitment
from .units import UnitGroup, find_units
from .wires import Rewire


class Network:
    """Layers one after the other; parameters are "0.weight", "0.bias", ... as in torch.nn.Sequential."""

    def __init__(
        self, layers: list[Layer], input_shape: tuple[int, ...], weights: dict[str, NDArray[Any]]
    ) -> None:
        self.layers = layers
        self.load_state_dict(weights)
        self.units: list[UnitGroup] = find_units(layers, input_shape)
        for group in self.units:
            if f"{group.first}.vacant" in weights:
                group.living = weights[f"{group.first}.vacant"] == 0

    def load_state_dict(self, weights: dict[str, NDArray[Any]]) -> None:
        """Copies every parameter in, as float64."""
        for name, value in weights.items():
            index, kind = name.split(".")
            layer = self.layers[int(index)]
            arrays = layer.weights if kind in ("weight", "bias") else layer.buffers
            arrays[kind] = np.array(value, np.float64)

    def parameters(self) -> dict[str, Array]:
        """The live parameters, in layer order."""
        return {f"{i}.{kind}": w for i, layer in enumerate(self.layers) for kind, w in layer.weights.items()}

    def buffers(self) -> dict[str, Array]:
        """State that is not learned, in layer order."""
        return {f"{i}.{kind}": b for i, layer in enumerate(self.layers) for kind, b in layer.buffers.items()}

    def gradients(self) -> dict[str, Array]:
        """The gradients of the last backward pass, in layer order."""
        return {
            f"{i}.{kind}": g for i, layer in enumerate(self.layers) for kind, g in layer.gradients.items()
        }

    def forward(self, x: NDArray[Any]) -> Array:
        """[B, ...] to [B, O]; keeps the activities of the unit groups."""
        y = np.asarray(x, np.float64)
        inputs: list[Array] = []
        for layer in self.layers:
            inputs.append(y)
            y = layer.forward(y)
        # What enters the next parametric layer is the activity, perhaps flattened: the same numbers.
        self.activities = [inputs[group.next].reshape(len(y), *group.shape) for group in self.units]
        return y

    def infer(self, x: NDArray[Any]) -> Array:
        """The same as evaluation has it."""
        for layer in self.layers:
            layer.training = False
        y = self.forward(x)
        for layer in self.layers:
            layer.training = True
        return y

    def backward(self, grad_y: Array) -> Array:
        """dL/dy [B, O] to dL/dx; the gradients of the weights stay in the layers."""
        for layer in reversed(self.layers):
            grad_y = layer.backward(grad_y)
        return grad_y


class Learner:
    """Trains a network with a loss, an optimizer and, if given, a rule that replaces units and goals."""

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        rule: ContinualBackprop | None = None,
        goals: list[Goal] | None = None,
        rewire: Rewire | None = None,
    ) -> None:
        self.network, self.loss, self.optimizer, self.rule = network, loss, optimizer, rule
        self.goals, self.rewire = goals or [], rewire

    def step(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[float, list[Integers]]:
        """One minibatch: (loss before the update, replaced units of every group)."""
        value, grad_y = self.loss(self.network.forward(x), y)
        if isinstance(self.rule, Recruitment):
            self.rule.loss = value
        self.network.backward(grad_y)
        return value, self.apply()

    def apply(self) -> list[Integers]:
        """Optimizer, then the unit rule, on the gradients and activities of the last passes."""
        for layer in self.network.layers:
            layer.follow()
        net = self.network
        before = [net.layers[group.next].weights["weight"].copy() for group in net.units]
        if isinstance(self.rule, Recruitment):
            self.rule.cut(self.network.layers, self.network.units)
        self.optimizer.step(self.network.parameters(), self.network.gradients())
        replaced = [np.zeros(0, np.int64) for _ in net.units]
        if self.rule is not None:
            replaced = self.rule.apply(net.layers, net.units, net.activities, self.optimizer)
        if self.rewire is not None:
            self.dropped = self.rewire.apply(net.layers, net.units, replaced, self.optimizer)
        backbone = self.rule.backbone if isinstance(self.rule, Recruitment) else None
        for goal in self.goals:
            goal.apply(net.layers, net.units, net.activities, replaced, backbone, before)
        for layer in net.layers:
            if "wires" in layer.buffers:
                layer.weights["weight"] *= layer.buffers["wires"]
        for group in net.units:
            group.vacate(net.layers)
        return replaced

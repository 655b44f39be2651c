"""PyTorch: eager, or the whole step (forward, backward, update) compiled into one graph.

One graph is its fastest compiled form at every size tried: where only the network is compiled, between an
eager backward call and an eager optimizer, it is no faster than eager.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from peers.cases import Array, Case, Data, Layer, weights_of

Step = Callable[[Tensor, Sequence[Tensor]], Tensor]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_MODULES = {"pool": nn.MaxPool2d, "relu": nn.ReLU, "flatten": nn.Flatten}


def build(case: Case, how: tuple[str, ...], data: Data, threads: int) -> Steps:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    model = _Model(case, data)
    x = list(torch.from_numpy(data["x"]))
    if "channels_last" in how:
        model = model.to(memory_format=torch.channels_last)
        x = [batch.contiguous(memory_format=torch.channels_last) for batch in x]
    targets = [torch.from_numpy(data[f"{name}.y"]) for name in case.networks]
    step = _compiled(case, model) if "compiled" in how else _eager(case, model)
    return Steps(step, x, targets)


class Steps:
    """One call of Python a step, on batches that are tensors already."""

    version = torch.__version__
    unit = 1

    def __init__(self, step: Step, x: list[Tensor], targets: list[Tensor]) -> None:
        self._step = step
        self._batches = cycle(list(zip(x, zip(*targets, strict=True), strict=True)))

    def losses(self, count: int) -> list[float]:
        return [self.run(1) for _ in range(count)]

    def run(self, steps: int) -> float:
        step, loss = self._step, torch.zeros(())
        for x, targets in islice(self._batches, steps):
            loss = step(x, targets)
        return float(loss)


class _Model(nn.Module):
    """All networks of a case, from their inputs to the sum of their losses."""

    def __init__(self, case: Case, data: Data) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            _network(layers, weights_of(data, name)) for name, layers in case.networks.items()
        )
        self.loss = cross_entropy if case.loss == "cross_entropy" else mse_loss

    def forward(self, x: Tensor, targets: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.networks, targets, strict=True)
        return reduce(operator.add, [self.loss(network(x), y) for network, y in pairs])


def _network(layers: tuple[Layer, ...], weights: dict[str, Array]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for index, (kind, *numbers) in enumerate(layers):
        if kind == "conv":
            filters, channels, kernel, _ = weights[f"{index}.weight"].shape
            modules.append(nn.Conv2d(channels, filters, kernel))
        elif kind == "linear":
            outputs, inputs = weights[f"{index}.weight"].shape
            modules.append(nn.Linear(inputs, outputs))
        else:
            modules.append(_MODULES[kind](*numbers))
    network = nn.Sequential(*modules)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return network


def _eager(case: Case, model: _Model) -> Step:
    """fused: the optimizer is one call for all weights, its fastest form where weights are many."""
    if case.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), case.step_size, fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), case.step_size, case.momentum, fused=True)

    def step(x: Tensor, targets: Sequence[Tensor]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = model(x, targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _compiled(case: Case, model: _Model) -> Step:
    names = [name for name, _ in model.named_parameters()]
    weights = [value.detach() for value in model.parameters()]
    first = [torch.zeros_like(value) for value in weights]  # velocity, or the first moment of Adam
    second = [torch.zeros_like(value) for value in weights]
    time = torch.zeros(())

    def loss(values: list[Tensor], x: Tensor, targets: Sequence[Tensor]) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, named, (x, targets))  # type: ignore[no-any-return]

    def adam(gradients: list[Tensor]) -> None:
        time.add_(1)
        correction = torch.sqrt(1 - _BETA2**time)
        size = case.step_size / (1 - _BETA1**time)
        for w, g, m, v in zip(weights, gradients, first, second, strict=True):
            m.mul_(_BETA1).add_(g, alpha=1 - _BETA1)
            v.mul_(_BETA2).addcmul_(g, g, value=1 - _BETA2)
            w.sub_(size * m / (v.sqrt() / correction + _EPSILON))

    def sgd(gradients: list[Tensor]) -> None:
        for w, g, v in zip(weights, gradients, first, strict=True):
            if case.momentum:
                g = v.mul_(case.momentum).add_(g)
            w.sub_(g, alpha=case.step_size)

    update = adam if case.optimizer == "adam" else sgd

    @torch.no_grad()
    def step(x: Tensor, targets: Sequence[Tensor]) -> Tensor:
        gradients, value = torch.func.grad_and_value(loss)(weights, x, targets)
        update(gradients)
        return value

    # cpp_wrapper: the generated code between the kernels is C++ too
    return torch.compile(step, fullgraph=True, options={"cpp_wrapper": True})

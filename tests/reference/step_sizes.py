"""Step sizes that follow from what is learned, on a dictionary of parameters, which they change in place.

A parameter "0.weight" [U, ...] or "0.bias" [U] belongs to layer 0, its rows to units.  `scope` says who owns
a step size: every weight, a unit (its incoming weights and bias), a layer, or the network; sums over an
owner's weights then take the place of a weight's own numbers.
"""

from typing import Any, ClassVar

import numpy as np

from .arrays import Array, Integers
from .losses import cross_entropy, mse, squared_error
from .network import Network
from .optimizers import Parameters


def curvatures(network: Network, loss: str, x: Array) -> Parameters:
    """The Gauss-Newton diagonal: for each weight the mean over samples of sum_kl J_k H_kl J_l.

    J_k is output k's derivative by the weight, H the loss's second derivative by the outputs.
    """
    total: Parameters = {}
    for sample in x:
        y = network.forward(sample[None])
        outputs = y.shape[1]
        if loss == "cross_entropy":
            q = np.exp(y[0] - y.max())
            q /= q.sum()
            second = np.diag(q) - np.outer(q, q)
        else:
            second = np.eye(outputs) * (2.0 / outputs if loss == "mse" else 1.0)
        jacobian: dict[str, list[Array]] = {}
        for k in range(outputs):
            network.backward(np.eye(outputs)[k : k + 1])
            for name, gradient in network.gradients().items():
                jacobian.setdefault(name, []).append(gradient.copy())
        for name, rows in jacobian.items():
            found = np.einsum("k...,kl,l...->...", np.array(rows), second, np.array(rows))
            total[name] = total.get(name, 0.0) + found / len(x)
    return total


class Owners:
    """Who owns which weights: an integer for each weight, and sums over owners."""

    def __init__(self, weights: Parameters, scope: str) -> None:
        self.of: dict[str, Integers] = {}
        first = 0
        layers: dict[str, int] = {}
        for name, w in weights.items():
            layer = name.split(".")[0]
            if scope == "weight":
                self.of[name] = first + np.arange(w.size).reshape(w.shape)
                first += w.size
            elif scope == "unit":
                if layer not in layers:
                    layers[layer] = first
                    first += len(w)
                rows = layers[layer] + np.arange(len(w))
                self.of[name] = np.broadcast_to(rows.reshape(-1, *[1] * (w.ndim - 1)), w.shape)
            else:
                if layer not in layers:
                    layers[layer] = len(layers)
                self.of[name] = np.full(w.shape, 0 if scope == "network" else layers[layer])
                first = 1 if scope == "network" else len(layers)
        self.count = first

    def sums(self, values: Parameters) -> Array:
        """Of each owner [count]."""
        total = np.zeros(self.count)
        for name, value in values.items():
            np.add.at(total, self.of[name], value)
        return total

    def spread(self, name: str, values: Array) -> Array:
        """An owner's value for each of its weights."""
        return np.asarray(values[self.of[name]])


class Rule:
    """Changes parameters along their gradients, by step sizes of its own."""

    def __init__(self, **options: Any) -> None:
        self.options = {**self.defaults, **options}
        self.state: dict[str, Parameters] = {}
        self.owners: Owners | None = None

    defaults: ClassVar[dict[str, Any]] = {}
    needs_curvature = False
    fade = 0.0  # of traces, where gradients are such

    def begin(self, weights: Parameters) -> Owners:
        """Who owns what, known when the weights are."""
        if self.owners is None:
            self.owners = Owners(weights, self.options["scope"])
        return self.owners

    def of_weights(self, name: str, weights: Parameters) -> Parameters:
        """A state of each weight, zero at first."""
        return self.state.setdefault(name, {key: np.zeros_like(w) for key, w in weights.items()})

    def step(
        self,
        weights: Parameters,
        gradients: Parameters,
        curvature: Parameters,
        newest: Parameters | None = None,
        delta: float = 1.0,
    ) -> None:
        """Along delta times the gradients.  newest: the latest sample's, where gradients are traces."""
        raise NotImplementedError

    def step_sizes(self) -> Parameters:
        """Of every weight, after the last step."""
        raise NotImplementedError

    def reset(self, name: str, where: Any) -> None:
        """A unit's weights begin anew: `where` are its rows, or its outgoing weights."""
        for state in self.state.values():
            state[name][where] = 0.0


LIMITS: dict[str, Any] = {
    "minimum_step_size": 0.0,
    "maximum_step_size": None,
    "newcomer_step_size": None,
    "output_step_size": None,
    "weight_decay": 0.0,
}


class IDBD(Rule):
    """Sutton 1992, with the curvature c in the place of x^2."""

    defaults: ClassVar[dict[str, Any]] = {
        **LIMITS,
        "step_size": 0.05,
        "meta_step_size": 0.01,
        "scope": "weight",
    }
    needs_curvature = True

    def begin(self, weights: Parameters) -> Owners:
        owners = super().begin(weights if self.output is None else self.learned(weights))
        if not hasattr(self, "beta"):
            self.beta = np.full(owners.count, np.log(self.options["step_size"]))
            self.scale = np.zeros(owners.count)
        return owners

    def meta(self, m: Array, c: Array) -> None:
        """The step sizes' own step."""
        self.beta = self.beta + self.options["meta_step_size"] * m

    def step(
        self,
        weights: Parameters,
        gradients: Parameters,
        curvature: Parameters,
        newest: Parameters | None = None,
        delta: float = 1.0,
    ) -> None:
        owners, h = self.begin(weights), self.of_weights("trace", weights)
        if self.output is not None:
            self.fixed = {name: w for name, w in weights.items() if name not in self.learned(weights)}
            for name, w in self.fixed.items():
                w -= self.output * delta * gradients[name]
            weights, curvature = self.learned(weights), self.learned(curvature)
        c = owners.sums(curvature)
        latest = gradients if newest is None else newest
        self.meta(owners.sums({name: -delta * latest[name] * h[name] for name in weights}), c)
        most = self.options["maximum_step_size"]
        with np.errstate(divide="ignore"):
            least = np.log(self.options["minimum_step_size"])
        self.beta = np.clip(self.beta, least, np.inf if most is None else np.log(most))
        self.bound(weights, c)
        alpha = np.exp(self.beta)
        for name, w in weights.items():
            change = owners.spread(name, alpha) * delta * gradients[name]
            w *= 1 - owners.spread(name, alpha) * self.options["weight_decay"]
            w -= change
            h[name][...] = owners.spread(name, np.maximum(1 - alpha * c, 0)) * h[name] - change

    @property
    def output(self) -> float | None:
        """The last layer's step size, where it is fixed."""
        return self.options.get("output_step_size")

    def learned(self, weights: Parameters) -> Parameters:
        """Those of all layers but the last."""
        last = list(weights)[-1].split(".")[0]
        return {name: w for name, w in weights.items() if name.split(".")[0] != last}

    def bound(self, weights: Parameters, c: Array) -> None:
        """Nothing."""

    def step_sizes(self) -> Parameters:
        assert self.owners is not None
        found = {name: self.owners.spread(name, np.exp(self.beta)) for name in self.owners.of}
        if self.output is not None:
            found |= {name: np.full_like(w, self.output) for name, w in self.fixed.items()}
        return found

    def reset(self, name: str, where: Any) -> None:
        super().reset(name, where)
        assert self.owners is not None
        incoming = self.options["scope"] == "unit" and not isinstance(where, tuple)
        if name in self.owners.of and (self.options["scope"] == "weight" or incoming):
            begins = self.options.get("newcomer_step_size")
            begins = self.options["step_size"] if begins is None else begins
            self.beta[self.owners.of[name][where]] = np.log(begins)
            self.scale[self.owners.of[name][where]] = 0.0


class Autostep(IDBD):
    """Mahmood et al. 2012."""

    defaults: ClassVar[dict[str, Any]] = {
        **LIMITS,
        "step_size": 0.01,
        "meta_step_size": 0.01,
        "time_constant": 1e4,
        "scope": "weight",
        "bound": "unit",
    }

    def meta(self, m: Array, c: Array) -> None:
        size = np.abs(m)
        rate = np.exp(self.beta) * np.maximum(c, 0) / self.options["time_constant"]
        slow = self.scale + rate * (size - self.scale)
        self.scale = np.maximum(size, slow)
        safe = np.where(self.scale > 0, self.scale, 1.0)
        self.beta = self.beta + np.where(self.scale > 0, self.options["meta_step_size"] * m / safe, 0.0)

    def bound(self, weights: Parameters, c: Array) -> None:
        assert self.owners is not None
        bounds = Owners(weights, self.options["bound"])
        # Which bound an owner is under, and alpha c of each owner.
        under = np.zeros(self.owners.count, np.int64)
        for name in weights:
            under[self.owners.of[name]] = bounds.of[name]
        total = np.zeros(bounds.count)
        np.add.at(total, under, np.exp(self.beta) * c)
        self.beta = self.beta - np.log(np.maximum(total, 1.0))[under]


class ObGD(Rule):
    """Elsayed et al. 2024, with a temporal-difference error of 1 and no traces."""

    defaults: ClassVar[dict[str, Any]] = {"step_size": 1.0, "kappa": 2.0, "scope": "network"}

    def along(self, weights: Parameters, gradients: Parameters, delta: float) -> Parameters:
        """What the weights move along, but for delta."""
        return gradients

    def step(
        self,
        weights: Parameters,
        gradients: Parameters,
        curvature: Parameters,
        newest: Parameters | None = None,
        delta: float = 1.0,
    ) -> None:
        owners, z = self.begin(weights), self.along(weights, gradients, delta)
        excess = owners.sums({name: np.abs(value) for name, value in z.items()})
        excess *= max(abs(delta), 1.0) * self.options["step_size"] * self.options["kappa"]
        self.alpha = self.options["step_size"] / np.maximum(excess, 1.0)
        for name, w in weights.items():
            w -= owners.spread(name, self.alpha) * delta * z[name]

    def step_sizes(self) -> Parameters:
        assert self.owners is not None
        alpha = self.alpha
        if self.options["scope"] == "weight":  # the bound is part of the step
            alpha = np.full_like(alpha, self.options["step_size"])
        return {name: self.owners.spread(name, alpha) for name in self.owners.of}


class AdaptiveObGD(ObGD):
    """The same along the gradient over the root of its running mean square, corrected for its beginning."""

    defaults: ClassVar[dict[str, Any]] = {
        "step_size": 1.0,
        "kappa": 2.0,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "scope": "network",
    }

    def along(self, weights: Parameters, gradients: Parameters, delta: float) -> Parameters:
        square, count = self.of_weights("square", weights), self.of_weights("count", weights)
        b2 = self.options["beta2"]
        z = {}
        for name, g in gradients.items():
            square[name][...] = b2 * square[name] + (1 - b2) * (delta * g) ** 2
            count[name] += 1
            z[name] = g / np.sqrt(square[name] / (1 - b2 ** count[name]) + self.options["epsilon"])
        return z


class MetaOptimize(IDBD):
    """AdamW, whose step sizes Lion changes (Sharifnassab, Salehkaleybar and Sutton 2025)."""

    defaults: ClassVar[dict[str, Any]] = {
        "step_size": 1e-3,
        "meta_step_size": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "discount": 0.9999,
        "scope": "network",
    }
    needs_curvature = False

    def step(
        self,
        weights: Parameters,
        gradients: Parameters,
        curvature: Parameters,
        newest: Parameters | None = None,
        delta: float = 1.0,
    ) -> None:
        owners, o = self.begin(weights), self.options
        h, first, second, count = (
            self.of_weights(name, weights) for name in ("trace", "first", "second", "count")
        )
        g = {name: delta * value for name, value in gradients.items()}
        meta = owners.sums({name: h[name] * value for name, value in g.items()})
        for name, w in weights.items():
            alpha = owners.spread(name, np.exp(self.beta))
            count[name] += 1
            first[name][...] = o["beta1"] * first[name] + (1 - o["beta1"]) * g[name]
            second[name][...] = o["beta2"] * second[name] + (1 - o["beta2"]) * g[name] ** 2
            root = np.sqrt(second[name] / (1 - o["beta2"] ** count[name])) + o["epsilon"]
            w *= 1 - alpha * o["weight_decay"]
            w -= alpha * first[name] / (1 - o["beta1"] ** count[name]) / root
            keep = o["discount"] * (1 - alpha * o["weight_decay"])
            h[name][...] = keep * h[name] + alpha * g[name] / root
        self.scale = 0.99 * self.scale + 0.01 * meta
        self.beta = self.beta + o["meta_step_size"] * np.sign(0.9 * self.scale + 0.1 * meta)


RULES: dict[str, type[Rule]] = {
    rule.__name__: rule for rule in (IDBD, Autostep, ObGD, AdaptiveObGD, MetaOptimize)
}
LOSS = {"cross_entropy": cross_entropy, "mse": mse, "squared_error": squared_error}


class Learner:
    """A network under a step-size rule: one minibatch after the other."""

    def __init__(self, network: Network, loss: str, rule: Rule) -> None:
        self.network, self.loss, self.rule = network, loss, rule

    def step(self, x: Array, y: Any) -> float:
        """The loss before the update."""
        found = curvatures(self.network, self.loss, x) if self.rule.needs_curvature else {}
        value, grad_y = LOSS[self.loss](self.network.forward(x), y)
        self.network.backward(grad_y)
        self.rule.step(self.network.parameters(), self.network.gradients(), found)
        return value

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


class IDBD(Rule):
    """Sutton 1992, with the curvature c in the place of x^2."""

    defaults: ClassVar[dict[str, Any]] = {"step_size": 0.05, "meta_step_size": 0.01, "scope": "weight"}
    needs_curvature = True

    def begin(self, weights: Parameters) -> Owners:
        owners = super().begin(weights)
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
        c = owners.sums(curvature)
        latest = gradients if newest is None else newest
        self.meta(owners.sums({name: -delta * g * h[name] for name, g in latest.items()}), c)
        self.bound(weights, c)
        alpha = np.exp(self.beta)
        for name, w in weights.items():
            change = owners.spread(name, alpha) * delta * gradients[name]
            w -= change
            h[name][...] = owners.spread(name, np.maximum(1 - alpha * c, 0)) * h[name] - change

    def bound(self, weights: Parameters, c: Array) -> None:
        """Nothing."""

    def step_sizes(self) -> Parameters:
        assert self.owners is not None
        return {name: self.owners.spread(name, np.exp(self.beta)) for name in self.owners.of}

    def reset(self, name: str, where: Any) -> None:
        super().reset(name, where)
        assert self.owners is not None
        incoming = self.options["scope"] == "unit" and not isinstance(where, tuple)
        if self.options["scope"] == "weight" or incoming:
            self.beta[self.owners.of[name][where]] = np.log(self.options["step_size"])
            self.scale[self.owners.of[name][where]] = 0.0


class Autostep(IDBD):
    """Mahmood et al. 2012."""

    defaults: ClassVar[dict[str, Any]] = {
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


class Intentional(Rule):
    """Updates that take away a share of the error (Sharifnassab et al. 2026), along traces."""

    defaults: ClassVar[dict[str, Any]] = {
        "step_size": 0.5,
        "beta2": 0.999,
        "clip": 20.0,
        "clip_decay": 0.9998,
        "normalise_error": False,
        "scope": "network",
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps, self.square, self.size = 0, 1.0, 0.0

    def safe(self, delta: float) -> float:
        """Clipped, and normalised where asked for."""
        decay = self.options["clip_decay"]
        self.square = decay * self.square + (1 - decay) * delta**2
        limit = self.options["clip"] * np.sqrt(self.square / (1 - decay**self.steps))
        safe = float(np.clip(delta, -limit, limit))
        if self.options["normalise_error"]:
            self.size = decay * self.size + (1 - decay) * abs(safe)
            safe /= max(self.size / (1 - decay**self.steps), 1e-12)
        return safe

    def step(
        self,
        weights: Parameters,
        gradients: Parameters,
        curvature: Parameters,
        newest: Parameters | None = None,
        delta: float = 1.0,
    ) -> None:
        assert newest is not None
        owners, second, b2 = self.begin(weights), self.of_weights("square", weights), self.options["beta2"]
        self.steps += 1
        safe, root = self.safe(delta), {}
        for name, g in newest.items():
            second[name][...] = b2 * second[name] + (1 - b2) * g**2
            root[name] = np.sqrt(second[name] / (1 - b2**self.steps)) + 1e-8
        if self.steps == 1:
            self.sigma = np.zeros(owners.count)
        now = owners.sums({name: g**2 / root[name] for name, g in newest.items()})
        self.sigma = self.fade * self.sigma + (1 - self.fade) * now
        along = owners.sums({name: e**2 / root[name] for name, e in gradients.items()})
        size = np.sqrt(self.sigma / (1 - self.fade**self.steps) * along)
        self.alpha = self.options["step_size"] / np.maximum(size, 1e-8)
        for name, w in weights.items():
            w -= owners.spread(name, self.alpha) * safe * gradients[name] / root[name]

    def step_sizes(self) -> Parameters:
        assert self.owners is not None
        return {name: self.owners.spread(name, self.alpha) for name in self.owners.of}


RULES: dict[str, type[Rule]] = {
    rule.__name__: rule for rule in (IDBD, Autostep, ObGD, AdaptiveObGD, MetaOptimize)
}
ALONG_TRACES: dict[str, type[Rule]] = {"Intentional": Intentional}  # and nothing else


class SwiftTD:
    """A linear learner (Javed, Sharifnassab and Sutton 2024), as published: a step is from one observation to
    the next."""

    defaults: ClassVar[dict[str, float]] = {
        "step_size": 0.01,
        "meta_step_size": 1e-3,
        "bound": 0.1,
        "decay": 0.999,
    }

    def __init__(self, inputs: int, discount: float, trace_decay: float, **options: float) -> None:
        self.options = {**self.defaults, **options}
        self.discount, self.trace_decay = discount, trace_decay
        self.w, self.h, self.h_old, self.h_next = (np.zeros(inputs) for _ in range(4))
        self.beta = np.full(inputs, np.log(self.options["step_size"]))
        self.begin()

    def begin(self) -> None:
        """Of an episode: nothing is to be blamed for what comes."""
        self.z, self.p, self.z_bar, self.z_delta = (np.zeros_like(self.w) for _ in range(4))
        self.v_old = self.v_delta = 0.0

    def see(self, x: Array, reward: float = 0.0) -> float:
        """One step; the value of the observation, as it was before what is learned."""
        o = self.options
        v = float(self.w @ x)
        delta = reward + self.discount * v - self.v_old
        change = delta * self.z - self.z_delta * self.v_delta
        self.w += change
        self.beta += o["meta_step_size"] / (np.exp(self.beta) + 1e-8) * (delta - self.v_delta) * self.p
        self.beta = np.minimum(self.beta, np.log(o["bound"]))
        self.h_old = self.h
        self.h = self.h_next + delta * self.z_bar - self.z_delta * self.v_delta
        for trace in (self.z, self.p, self.z_bar):
            trace *= self.discount * self.trace_decay
        self.learned = self.beta.copy()  # before anything is made of x
        rate, b = float(np.exp(self.beta) @ x**2), float(self.z @ x)
        self.v_delta = float(change @ x)
        self.z_delta = min(1.0, o["bound"] / rate) * np.exp(self.beta) * x if rate > 0 else np.zeros_like(x)
        self.z += self.z_delta * (1 - b)
        self.p += self.h_old * x
        self.z_bar += self.z_delta * (1 - b - self.z_bar * x)
        self.h_next = self.h - self.h_old * x * (self.z - self.z_delta) - self.h * self.z_delta * x
        if rate > o["bound"]:
            for state in (self.h, self.h_old, self.h_next, self.z_bar):
                state[...] = 0.0
            self.beta += np.log(o["decay"]) * x**2
        self.v_old = v
        return v

    def end(self, reward: float) -> None:
        """Of an episode, by its last reward: what follows has no value."""
        self.see(np.zeros_like(self.w), reward)
        self.begin()


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


class TraceLearner:
    """TD(lambda): a network with one output under a step-size rule, along its traces (Sutton 1988)."""

    def __init__(self, network: Network, rule: Rule, discount: float, trace_decay: float) -> None:
        self.network, self.rule = network, rule
        self.discount, self.trace_decay = discount, trace_decay
        rule.fade = discount * trace_decay
        self.traces = {name: np.zeros_like(w) for name, w in network.parameters().items()}

    def step(self, x: Array, reward: float, x_next: Array, terminated: bool) -> float:
        """One transition between observations [I]; the temporal-difference error."""
        ahead = 0.0 if terminated else float(self.network.forward(x_next[None])[0, 0])
        delta = reward + self.discount * ahead - float(self.network.forward(x[None])[0, 0])
        self.network.backward(np.ones((1, 1)))
        now = self.network.gradients()
        for name, e in self.traces.items():
            e[...] = self.discount * self.trace_decay * e + now[name]
        down = {name: -e for name, e in self.traces.items()}  # gradients point where an error grows
        curvature = {name: now[name] * e for name, e in self.traces.items()}
        newest = {name: -g for name, g in now.items()}
        self.rule.step(self.network.parameters(), down, curvature, newest, delta)
        if terminated:
            for e in self.traces.values():
                e[...] = 0.0
        return delta

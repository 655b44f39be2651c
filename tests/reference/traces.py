"""Step sizes along eligibility traces, of temporal-difference errors: TD(lambda), rules for these alone."""

from typing import Any, ClassVar

import numpy as np

from .arrays import Array
from .network import Network
from .optimizers import Parameters
from .step_sizes import Rule


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

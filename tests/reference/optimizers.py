"""SGD, Adam, AdamW and UPGD on a dictionary of parameters, which they change in place.

SGD and Adam couple the weight decay lambda into the gradient, g + lambda (w - w_0), biases included; w_0 is
zero, or the weights of the first step. `reset(name, where)` forgets the state that belongs to the weights
selected by `where` (any NumPy index).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array

Parameters = dict[str, Array]


class Optimizer:
    """Changes parameters along their gradients."""

    def step(self, weights: Parameters, gradients: Parameters) -> None:
        raise NotImplementedError

    def reset(self, name: str, where: Any) -> None:
        raise NotImplementedError


class Decay:
    """From which weights those of a parameter are away: zero, or what they were at first."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.first: Parameters = {}

    def away(self, name: str, w: Array) -> Array:
        if self.to == "zero":
            return w
        return np.asarray(w - self.first.setdefault(name, w.copy()))


class SGD(Optimizer):
    """v <- mu v + (g + lambda w); w <- w - alpha v."""

    def __init__(
        self,
        step_size: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        decay_to: str = "zero",
    ) -> None:
        self.step_size, self.momentum, self.weight_decay = step_size, momentum, weight_decay
        self.decay = Decay(decay_to)
        self.velocity: Parameters = {}

    def step(self, weights: Parameters, gradients: Parameters) -> None:
        for name, w in weights.items():
            v = self.velocity.setdefault(name, np.zeros_like(w))
            v[...] = self.momentum * v + (gradients[name] + self.weight_decay * self.decay.away(name, w))
            w -= self.step_size * v

    def reset(self, name: str, where: Any) -> None:
        if name in self.velocity:
            self.velocity[name][where] = 0.0


class Adam(Optimizer):
    """Adam with one step count t a weight.

    m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; with m_hat = m / (1 - b1^t) and v_hat = v / (1 - b2^t):
    epsilon_at "corrected": w <- w - alpha m_hat / (sqrt(v_hat) + epsilon)
    epsilon_at "raw":       w <- w - alpha sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)
    """

    def __init__(
        self,
        step_size: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        epsilon_at: str = "corrected",
        decay_to: str = "zero",
    ) -> None:
        if epsilon_at not in ("corrected", "raw"):
            raise ValueError(f"[Adam] expected epsilon_at corrected or raw, got {epsilon_at}")
        self.step_size, self.beta1, self.beta2 = step_size, beta1, beta2
        self.epsilon, self.weight_decay, self.epsilon_at = epsilon, weight_decay, epsilon_at
        self.decay = Decay(decay_to)
        self.first: Parameters = {}
        self.second: Parameters = {}
        self.count: Parameters = {}

    def step(self, weights: Parameters, gradients: Parameters) -> None:
        for name, w in weights.items():
            m, v, t = (s.setdefault(name, np.zeros_like(w)) for s in (self.first, self.second, self.count))
            g = self.coupled(name, w, gradients[name])
            t += 1.0
            m[...] = self.beta1 * m + (1.0 - self.beta1) * g
            v[...] = self.beta2 * v + (1.0 - self.beta2) * g**2
            correction1, correction2 = 1.0 - self.beta1**t, 1.0 - self.beta2**t
            if self.epsilon_at == "corrected":
                w -= self.step_size * (m / correction1) / (np.sqrt(v / correction2) + self.epsilon)
            else:
                w -= self.step_size * np.sqrt(correction2) / correction1 * m / (np.sqrt(v) + self.epsilon)

    def coupled(self, name: str, w: Array, gradient: Array) -> Array:
        """The gradient with the decay."""
        return np.asarray(gradient + self.weight_decay * self.decay.away(name, w))

    def reset(self, name: str, where: Any) -> None:
        for state in (self.first, self.second, self.count):
            if name in state:
                state[name][where] = 0.0


class AdamW(Adam):
    """Adam, and beside it w <- w - alpha lambda (w - w_0)."""

    def __init__(self, weight_decay: float = 0.01, **others: Any) -> None:
        super().__init__(weight_decay=weight_decay, **others)

    def coupled(self, name: str, w: Array, gradient: Array) -> Array:
        w -= self.step_size * self.weight_decay * self.decay.away(name, w)
        return gradient


class UPGD(Optimizer):
    """Weights of little utility change most (Elsayed and Mahmood 2024, algorithm 1).

    `draw(step)` gives the normal numbers of every parameter.
    """

    def __init__(
        self,
        step_size: float = 0.01,
        weight_decay: float = 0.0,
        utility_decay: float = 0.999,
        noise: float = 0.001,
        factor: float = 1.0,
        maximum: str = "uncorrected",
        draw: Callable[[int], Parameters] | None = None,
    ) -> None:
        self.step_size, self.weight_decay, self.utility_decay = step_size, weight_decay, utility_decay
        self.noise, self.factor, self.maximum, self.draw = noise, factor, maximum, draw
        self.utility: Parameters = {}
        self.count: Parameters = {}
        self.steps = 0

    def step(self, weights: Parameters, gradients: Parameters) -> None:
        beta = self.utility_decay
        corrected = {}
        for name, w in weights.items():
            u, t = (s.setdefault(name, np.zeros_like(w)) for s in (self.utility, self.count))
            t += 1.0
            u[...] = beta * u + (1 - beta) * -gradients[name] * w
            corrected[name] = u / (1 - beta**t)
        judged = corrected if self.maximum == "corrected" else self.utility
        most = max(u.max() for u in judged.values())
        drawn = self.draw(self.steps) if self.draw else {}
        for name, w in weights.items():
            s = 0.5 * (1 + np.tanh(0.5 * corrected[name] / most)) if most > 0 else np.full_like(w, 0.5)
            moved = (gradients[name] + self.noise * drawn.get(name, 0.0)) * (1 - s)
            w *= 1 - self.step_size * self.weight_decay
            w -= self.factor * self.step_size * moved
        self.steps += 1

    def reset(self, name: str, where: Any) -> None:
        for state in (self.utility, self.count):
            if name in state:
                state[name][where] = 0.0

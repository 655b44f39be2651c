"""SGD and Adam on a dictionary of parameters, which they change in place.

Both couple the weight decay lambda into the gradient, g + lambda w, biases included. `reset(name, where)`
forgets the state that belongs to the weights selected by `where` (any NumPy index).
"""

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


class SGD(Optimizer):
    """v <- mu v + (g + lambda w); w <- w - alpha v."""

    def __init__(self, step_size: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        self.step_size, self.momentum, self.weight_decay = step_size, momentum, weight_decay
        self.velocity: Parameters = {}

    def step(self, weights: Parameters, gradients: Parameters) -> None:
        for name, w in weights.items():
            v = self.velocity.setdefault(name, np.zeros_like(w))
            v[...] = self.momentum * v + (gradients[name] + self.weight_decay * w)
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
    ) -> None:
        if epsilon_at not in ("corrected", "raw"):
            raise ValueError(f"[Adam] expected epsilon_at corrected or raw, got {epsilon_at}")
        self.step_size, self.beta1, self.beta2 = step_size, beta1, beta2
        self.epsilon, self.weight_decay, self.epsilon_at = epsilon, weight_decay, epsilon_at
        self.first: Parameters = {}
        self.second: Parameters = {}
        self.count: Parameters = {}

    def step(self, weights: Parameters, gradients: Parameters) -> None:
        for name, w in weights.items():
            m, v, t = (s.setdefault(name, np.zeros_like(w)) for s in (self.first, self.second, self.count))
            g = gradients[name] + self.weight_decay * w
            t += 1.0
            m[...] = self.beta1 * m + (1.0 - self.beta1) * g
            v[...] = self.beta2 * v + (1.0 - self.beta2) * g**2
            correction1, correction2 = 1.0 - self.beta1**t, 1.0 - self.beta2**t
            if self.epsilon_at == "corrected":
                w -= self.step_size * (m / correction1) / (np.sqrt(v / correction2) + self.epsilon)
            else:
                w -= self.step_size * np.sqrt(correction2) / correction1 * m / (np.sqrt(v) + self.epsilon)

    def reset(self, name: str, where: Any) -> None:
        for state in (self.first, self.second, self.count):
            if name in state:
                state[name][where] = 0.0

"""Proximal policy optimisation (Schulman et al. 2017) for one run: advantages, losses, an update.

A Gaussian policy's mean is a network's output, its log standard deviation a parameter of its own; a
categorical policy's logits are the outputs.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Integers, Mask
from .network import Network
from .optimizers import Optimizer


def advantages(
    rewards: NDArray[Any],
    values: NDArray[Any],
    final_values: NDArray[Any],
    terminated: Mask,
    truncated: Mask,
    discount: float,
    trace: float,
) -> Array:
    """Generalised advantage estimates [n] (Schulman et al. 2016).

    delta_t = r_t + gamma (1 - terminated_t) V(final observation_t) - V(s_t);
    A_t = delta_t + gamma lambda (1 - terminated_t)(1 - truncated_t) A_{t+1}.

    final_values: of the observation that step t led to, before any reset.
    """
    found = np.zeros(len(rewards))
    next_advantage = 0.0
    for t in reversed(range(len(rewards))):
        alive, within = 1.0 - terminated[t], (1.0 - terminated[t]) * (1.0 - truncated[t])
        delta = float(rewards[t]) + discount * alive * float(final_values[t]) - float(values[t])
        next_advantage = delta + discount * trace * within * next_advantage
        found[t] = next_advantage
    return found


def log_probability(actions: NDArray[Any], mean: Array, log_std: Array) -> Array:
    """[B] of actions [B, A] under a diagonal Gaussian."""
    z = (np.asarray(actions, np.float64) - mean) / np.exp(log_std)
    result: Array = (-0.5 * z**2 - log_std - 0.5 * np.log(2.0 * np.pi)).sum(axis=1)
    return result


def surrogate(
    log_probability: Array, old: NDArray[Any], advantage: NDArray[Any], clip: float
) -> tuple[float, Array, float]:
    """-mean(min(ratio A, clip(ratio) A)), its gradient by the log probability [B], and the share of samples
    outside the clipping range."""
    ratio = np.exp(log_probability - old)
    plain, clipped = ratio * advantage, np.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage
    # Where the clipped one is smaller it does not depend on the policy.
    gradient = np.where(plain <= clipped, -plain, 0.0) / len(ratio)
    return -float(np.minimum(plain, clipped).mean()), gradient, float((np.abs(ratio - 1.0) > clip).mean())


def policy_loss(
    actions: NDArray[Any],
    mean: Array,
    log_std: Array,
    old: NDArray[Any],
    advantage: NDArray[Any],
    clip: float,
    entropy: float = 0.0,
) -> tuple[float, Array, Array]:
    """Of a Gaussian policy, less its weighted entropy; gradients by mean [B, A] and by log_std [A]."""
    loss, by_log_probability, _ = surrogate(log_probability(actions, mean, log_std), old, advantage, clip)
    z = (np.asarray(actions, np.float64) - mean) / np.exp(log_std)
    by_mean = by_log_probability[:, None] * z / np.exp(log_std)
    by_log_std = (by_log_probability[:, None] * (z**2 - 1.0)).sum(axis=0) - entropy
    of_policy = float((log_std + 0.5 * np.log(2.0 * np.pi * np.e)).sum())
    return loss - entropy * of_policy, by_mean, by_log_std


def categorical_loss(
    actions: NDArray[Any],
    logits: Array,
    old: NDArray[Any],
    advantage: NDArray[Any],
    clip: float,
    entropy: float = 0.0,
) -> tuple[float, Array]:
    """Of a categorical policy, less its weighted entropy; gradient by logits [B, A]."""
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    chosen = np.eye(logits.shape[1])[np.asarray(actions, int)]
    loss, by_log_probability, _ = surrogate((chosen * log_p).sum(axis=1), old, advantage, clip)
    p = np.exp(log_p)
    of_policy = -(p * log_p).sum(axis=1)
    by_entropy = -p * (log_p + of_policy[:, None]) / len(logits)
    gradient: Array = by_log_probability[:, None] * (chosen - p) - entropy * by_entropy
    return loss - entropy * float(of_policy.mean()), gradient


def value_loss(values: Array, returns: Array) -> tuple[float, Array]:
    """mean((v - R)^2) and its gradient [B]."""
    difference = values - returns
    return float((difference**2).mean()), 2.0 * difference / len(values)


class Agent:
    """Policy, log standard deviation and value under one optimizer."""

    def __init__(self, policy: Network, value: Network, log_std: NDArray[Any], optimizer: Optimizer) -> None:
        self.policy, self.value, self.optimizer = policy, value, optimizer
        self.log_std: Array = np.array(log_std, np.float64)

    def parameters(self) -> dict[str, Array]:
        """All of them, live."""
        named = {"log_std": self.log_std}
        for prefix, net in (("policy", self.policy), ("value", self.value)):
            named |= {f"{prefix}.{name}": w for name, w in net.parameters().items()}
        return named

    def learn(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        old: NDArray[Any],
        advantage: Array,
        returns: Array,
        clip: float,
    ) -> tuple[float, float]:
        """One minibatch: both losses before the update."""
        loss, by_mean, by_log_std = policy_loss(
            actions, self.policy.forward(observations), self.log_std, old, advantage, clip
        )
        self.policy.backward(by_mean)
        critic, by_value = value_loss(self.value.forward(observations)[:, 0], returns)
        self.value.backward(by_value[:, None])
        gradients = {"log_std": by_log_std}
        for prefix, net in (("policy", self.policy), ("value", self.value)):
            gradients |= {f"{prefix}.{name}": g for name, g in net.gradients().items()}
        self.optimizer.step(self.parameters(), gradients)
        return loss, critic


def standardised(advantage: Array) -> Array:
    """Over the whole buffer, by the deviation with n - 1."""
    result: Array = (advantage - advantage.mean()) / advantage.std(ddof=1)
    return result


def update(
    agent: Agent,
    buffer: dict[str, NDArray[Any]],
    permutations: Integers,
    batch_size: int,
    clip: float,
    discount: float,
    trace: float,
) -> list[tuple[float, float]]:
    """All epochs on one buffer: the losses of every minibatch.

    buffer: observations [n, ...], final_observations [n, ...], actions, log_probs, rewards, terminated,
    truncated [n].  permutations: [epochs, n].
    """
    observations = buffer["observations"]
    values = agent.value.forward(observations)[:, 0]
    final_values = agent.value.forward(buffer["final_observations"])[:, 0]
    estimates = advantages(
        buffer["rewards"], values, final_values, buffer["terminated"], buffer["truncated"], discount, trace
    )
    returns, normal = estimates + values, standardised(estimates)
    return [
        agent.learn(
            observations[at], buffer["actions"][at], buffer["log_probs"][at], normal[at], returns[at], clip
        )
        for order in permutations
        for at in np.split(order, range(batch_size, len(order), batch_size))
    ]

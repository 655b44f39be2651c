"""One act-and-learn step of the streaming actor-critic with ObGD, as three libraries do it.

Each maker returns a function of one step: from observation [105], reward and whether the episode ended to
the next action.  PyTorch's is the published formulation (a module, an optimizer that loops over parameters);
JAX's is one jitted function.  Source: Elsayed, Vasan and Mahmood (2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUTS, HIDDEN, ACTIONS = 105, 128, 8
DISCOUNT, DECAY, KAPPAS, ENTROPY = 0.99, 0.8, (3.0, 2.0), 0.01
Step = Callable[[NDArray[Any], float, bool], Any]


def klopf_agent(runs: int = 1, adaptive: bool = False) -> Any:
    """R agents of klopf's, without scaling, which the others leave to wrappers."""
    import klopf as kl

    def network(outputs: int, stream: int) -> kl.Network:
        norm = kl.LayerNorm(affine=False)
        body = [layer for _ in range(2) for layer in (kl.Linear(HIDDEN), norm, kl.LeakyReLU())]
        layers = [*body, kl.Linear(outputs)]
        return kl.Network(layers, (INPUTS,), runs=runs, init="sparse", stream=stream)

    rule: Any = kl.AdaptiveObGD if adaptive else kl.ObGD
    return kl.StreamAgent(
        network(2 * ACTIONS, 1),
        network(1, 0),
        optimizer=rule(kappa=KAPPAS[0]),
        value_optimizer=rule(kappa=KAPPAS[1]),
        normalise_observations=False,
        scale_rewards=False,
    )


def klopf_step() -> Step:
    """The whole call from Python."""
    agent = klopf_agent()
    agent.begin(np.zeros((1, INPUTS)))
    going = np.zeros(1, bool)

    def step(observation: NDArray[Any], reward: float, ended: bool) -> Any:
        return agent.step(observation[None], np.array([reward]), np.array([ended]), going)

    return step


def torch_step() -> Step:
    """As published."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

        def forward(self, x: Any) -> Any:
            x = F.leaky_relu(F.layer_norm(self.first(x), (HIDDEN,)))
            return F.leaky_relu(F.layer_norm(self.second(x), (HIDDEN,)))

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mean, self.std = Body(), nn.Linear(HIDDEN, ACTIONS), nn.Linear(HIDDEN, ACTIONS)

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            return torch.distributions.Normal(self.mean(y), F.softplus(self.std(y)))

    class ObGD(torch.optim.Optimizer):
        def __init__(self, parameters: Any, kappa: float) -> None:
            super().__init__(parameters, {"kappa": kappa})

        def step(self, delta: float, reset: bool) -> None:  # type: ignore[override]
            total = 0.0
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state["trace"] = torch.zeros_like(p.data)
                    state["trace"].mul_(DISCOUNT * DECAY).add_(p.grad)
                    total += state["trace"].abs().sum().item()
            excess = max(abs(delta), 1.0) * total * self.param_groups[0]["kappa"]
            size = 1 / excess if excess > 1 else 1.0
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(delta * self.state[p]["trace"], alpha=-size)
                    if reset:
                        self.state[p]["trace"].zero_()

    policy, value = Policy(), nn.Sequential(Body(), nn.Linear(HIDDEN, 1))
    optimizers = [ObGD(net.parameters(), k) for net, k in zip((policy, value), KAPPAS, strict=True)]
    last: dict[str, Any] = {"x": torch.zeros(INPUTS), "action": torch.zeros(ACTIONS)}

    def step(observation: NDArray[Any], reward: float, ended: bool) -> Any:
        x, ahead = last["x"], torch.tensor(observation, dtype=torch.float32)
        v, following = value(x), value(ahead)
        delta = (reward + DISCOUNT * following * (1 - ended) - v).item()
        distribution = policy(x)
        surprise = -distribution.log_prob(last["action"]).sum()
        entropy = -ENTROPY * distribution.entropy().sum() * np.sign(delta)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (-v).backward()
        (surprise + entropy).backward()
        for optimizer in optimizers:
            optimizer.step(delta, ended)
        last["x"] = ahead
        last["action"] = policy(ahead).sample()
        return last["action"].numpy()

    return step


def jax_step() -> Step:
    """One jitted function a step."""
    import jax
    import jax.numpy as jnp

    def body(layers: Any, x: Any) -> Any:
        for weight, bias in layers[:-1]:
            y = weight @ x + bias
            y = (y - y.mean()) / jnp.sqrt(y.var() + 1e-5)
            x = jnp.where(y >= 0, y, 0.01 * y)
        weight, bias = layers[-1]
        return weight @ x + bias

    def drawn(key: Any, outputs: int) -> Any:
        sizes = (INPUTS, HIDDEN, HIDDEN, outputs)
        keys = jax.random.split(key, 3)
        return [
            (jax.random.uniform(k, (o, i), minval=-1, maxval=1) / i**0.5, jnp.zeros(o))
            for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    def score(layers: Any, x: Any, action: Any, sign: Any) -> Any:
        y = body(layers, x)
        std = jax.nn.softplus(y[ACTIONS:])
        log_p = (-0.5 * ((action - y[:ACTIONS]) / std) ** 2 - jnp.log(std)).sum()
        return log_p + ENTROPY * sign * jnp.log(std).sum()

    def follow(layers: Any, traces: Any, grads: Any, delta: Any, kappa: float, ended: Any) -> Any:
        traces = jax.tree.map(lambda e, g: DISCOUNT * DECAY * e + g, traces, grads)
        total = sum(jnp.abs(e).sum() for e in jax.tree.leaves(traces))
        size = 1 / jnp.maximum(jnp.maximum(jnp.abs(delta), 1) * total * kappa, 1)
        layers = jax.tree.map(lambda w, e: w + size * delta * e, layers, traces)
        return layers, jax.tree.map(lambda e: e * (1 - ended), traces)

    def learn(state: Any, ahead: Any, reward: Any, ended: Any) -> Any:
        policy, value, of_policy, of_value, x, action, key = state
        v, grad = jax.value_and_grad(lambda w: body(w, x)[0])(value)
        delta = reward + DISCOUNT * body(value, ahead)[0] * (1 - ended) - v
        value, of_value = follow(value, of_value, grad, delta, KAPPAS[1], ended)
        grad = jax.grad(score)(policy, x, action, jnp.sign(delta))
        policy, of_policy = follow(policy, of_policy, grad, delta, KAPPAS[0], ended)
        key, own = jax.random.split(key)
        y = body(policy, ahead)
        action = y[:ACTIONS] + jax.nn.softplus(y[ACTIONS:]) * jax.random.normal(own, (ACTIONS,))
        return policy, value, of_policy, of_value, ahead, action, key

    keys = jax.random.split(jax.random.key(0), 3)
    nets = drawn(keys[0], 2 * ACTIONS), drawn(keys[1], 1)
    traces = tuple(jax.tree.map(jnp.zeros_like, net) for net in nets)
    jitted = jax.jit(learn, donate_argnums=0)
    last = [(*nets, *traces, jnp.zeros(INPUTS), jnp.zeros(ACTIONS), keys[2])]

    def step(observation: NDArray[Any], reward: float, ended: bool) -> Any:
        last[0] = jitted(last[0], observation, reward, float(ended))
        return np.asarray(last[0][5])

    return step


STEPS: dict[str, Callable[[], Step]] = {"klopf": klopf_step, "PyTorch": torch_step, "JAX": jax_step}

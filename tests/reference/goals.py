"""Goals of units' own: what changes a unit's incoming weights and bias after optimizer and unit rule."""

from dataclasses import dataclass, field

import numpy as np

from .arrays import Array, Integers, Mask, mean, total
from .layers import Layer
from .perturbation import Perturbation, inputs_of, varies
from .units import UnitGroup, bias_corrected


@dataclass
class Goal:
    """Options and their names as in the engine."""

    goal: str
    step_size: float = 1e-3
    decay: float = 0.999
    share: float = 0.1
    correlation_decay: float = 0.995
    units: str = "all"
    layers: tuple[int, ...] | None = None
    by: str = "gradient"
    noise: float = 0.3
    hold: int = 1
    trace_decay: float = 0.0
    baseline_decay: float = 0.99
    seed: int = 0
    steps: int = 0  # so far
    known: dict[int, UnitGroup] = field(default_factory=dict)  # statistics of groups, as the goal has them
    rate: dict[int, Array] = field(default_factory=dict)  # [U] before bias correction
    correlation: dict[int, Array] = field(default_factory=dict)  # [U, partners]
    perturbed: dict[int, Perturbation] = field(default_factory=dict)

    def apply(
        self,
        layers: list[Layer],
        groups: list[UnitGroup],
        activities: list[Array],
        replaced: list[Integers],
        backbone: list[Mask] | None,
        before: list[Array],
    ) -> None:
        """One step; activities [B, *group.shape]; before: next weights of every group before the update."""
        for i, group in enumerate(groups):
            if self.layers is not None and i not in self.layers:
                continue
            known = self.known.setdefault(i, UnitGroup(group.first, group.next, group.shape))
            begins = ~group.living
            begins[replaced[i]] = True
            follows = ~begins
            if self.units == "fringe":
                assert backbone is not None
                follows &= ~backbone[i]
            if self.goal == "active":
                self.be_active(i, known, layers, activities[i], follows)
            else:
                known.watch(activities[i], self.decay)
                heard = None if backbone is None or i + 1 == len(groups) else backbone[i + 1]
                if self.goal == "unit_variance":
                    self.normalise(known, layers, follows)
                elif self.by == "perturbation":
                    renewed = replaced[i + 1] if i + 1 < len(groups) else np.zeros(0, np.int64)
                    if i not in self.perturbed:
                        self.perturbed[i] = Perturbation(known, inputs_of(group, groups, i, layers))
                    self.perturbed[i].forget(replaced[i])
                    self.perturb(self.perturbed[i], layers, follows, heard, renewed, before[i])
                else:
                    self.correlate(i, known, layers, activities[i], follows, heard)
            known.forget(np.flatnonzero(begins))
            for kept in (self.rate, self.correlation):
                if i in kept:
                    kept[i][begins] = 0.0
        self.steps += 1

    def be_active(
        self, index: int, known: UnitGroup, layers: list[Layer], activity: Array, follows: Mask
    ) -> None:
        """Biases rise where the running rate is low."""
        rectified = [type(layer).__name__ for layer in layers[known.first + 1 : known.next]]
        level = 0.0 if "ReLU" in rectified else 0.01
        seen = np.abs(activity.reshape(len(activity), known.size, -1)).max(axis=2) > level
        rate = self.rate.setdefault(index, np.zeros(known.size))
        known.age[follows] += 1.0
        rate[follows] = (self.decay * rate + (1.0 - self.decay) * mean(seen.astype(np.float64), 0))[follows]
        with np.errstate(invalid="ignore"):
            corrected = rate / (1.0 - self.decay**known.age)
        rise = self.step_size * (self.share - corrected) / self.share
        layers[known.first].weights["bias"] += np.where(follows & (corrected < self.share), rise, 0.0)

    def normalise(self, known: UnitGroup, layers: list[Layer], follows: Mask) -> None:
        """Weights and biases are scaled towards a standard deviation of one."""
        told = follows & varies(known, self.decay)
        factor = np.where(told, np.where(told, known.variance, 1.0) ** (-0.5 * self.step_size), 1.0)
        for w in layers[known.first].weights.values():
            w *= factor.reshape(-1, *[1] * (w.ndim - 1))

    def correlate(
        self,
        index: int,
        known: UnitGroup,
        layers: list[Layer],
        activity: Array,
        follows: Mask,
        heard: Mask | None,
    ) -> None:
        """Towards what successors lack, or away from peers."""
        first, after, batch = layers[known.first], layers[known.next], len(activity)
        deviation = np.sqrt(known.variance)
        told = varies(known, self.decay)
        mean_activity = bias_corrected(known.activity_trace, known.age, self.decay)
        z = np.where(told, (activity - mean_activity) / np.where(told, deviation, 1.0), 0.0)  # [B, U]
        listened = self.goal == "listened"
        signal = -batch * after.grad_y if listened else z  # [B, partners]
        now = z.T @ signal / batch
        c = self.correlation.setdefault(index, np.zeros_like(now))
        c[follows] = (self.correlation_decay * c + (1.0 - self.correlation_decay) * now)[follows]
        if listened:
            pull = np.sign(c) * (1.0 if heard is None else heard)
        else:
            pull = -c / (len(c) - 1.0)
            np.fill_diagonal(pull, 0.0)
        along = signal @ pull.T - z * total(pull * c, 1)
        slope = np.ones_like(activity)
        for layer in reversed(layers[known.first + 1 : known.next]):
            slope = layer.backward(slope)
        along *= slope
        w, bias = first.weights["weight"], first.weights["bias"]
        step = self.step_size / np.where(told, deviation, 1.0)
        moved_w = w + step[:, None] * (along.T @ first.x * first.buffers.get("wires", 1.0)) / batch
        moved_bias = bias + step * mean(along, 0)
        before, now_norm = (total(a**2, 1) + b**2 for a, b in ((w, bias), (moved_w, moved_bias)))
        back = np.sqrt(before / np.where(now_norm > 0, now_norm, 1.0))
        goes = follows & told
        w[goes], bias[goes] = (moved_w * back[:, None])[goes], (moved_bias * back)[goes]

    def perturb(
        self,
        units: Perturbation,
        layers: list[Layer],
        follows: Mask,
        heard: Mask | None,
        renewed: Integers,
        before: Array,
    ) -> None:
        """Along perturbations under which outgoing weights grew more than usual."""
        known = units.group
        now = layers[known.next].weights["weight"]
        counts = np.ones(len(now), bool) if heard is None else heard.copy()
        counts[renewed] = False
        was, grown = (w.reshape(len(w), known.size, -1) for w in (before, now))
        units.find_rewards(was, grown, counts, varies(known, self.decay))
        advantage = units.advantages(follows, self.baseline_decay)
        drawn = units.draw(self.seed, known.first, self.steps)
        rates = (self.step_size, self.noise, self.trace_decay)
        due = (self.steps + 1) % self.hold == 0
        units.move(layers[known.first], advantage, follows, drawn, due, rates)

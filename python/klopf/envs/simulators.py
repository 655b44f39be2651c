"""Many simulations of one model on a thread pool: MuJoCo's batch, or objects where contact forces are wanted.

Both give the same numbers as one simulation after the other.  A simulation that fails keeps the state it had,
and the others go on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf.envs.needed import Batch, SimulationError, mujoco
from klopf.envs.tasks import Array

Ids = NDArray[np.intp]


class BatchSimulators:
    """By `mujoco.batch`, which computes no contact forces."""

    cfrc_ext = None

    def __init__(self, model: mujoco.MjModel, count: int, threads: int) -> None:
        self._batch = Batch(model, count, threads)
        self.state: Array = self._batch.state  # [count, ...] everything that a simulation goes on from
        self.qpos, self.qvel, self._ctrl = (self._batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self.xpos = self._batch.bind("xpos")

    def step(self, ids: Ids | None, controls: Array, frames: int) -> Ids:
        """Those that failed."""
        self._ctrl[slice(None) if ids is None else ids] = controls
        return self._failed(lambda: self._batch.step(ids, frames))

    def reset(self, ids: Ids, qpos: Array, qvel: Array) -> Ids:
        def start() -> None:
            self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
            self.qpos[ids], self.qvel[ids] = qpos, qvel
            self._batch.forward(ids)

        return self._failed(start)

    def set_friction(self, sim: int, geoms: Any, friction: tuple[float, float, float]) -> None:
        self._batch.expand("geom_friction")[sim, geoms] = friction

    @staticmethod
    def _failed(call: Any) -> Ids:
        try:
            call()
        except SimulationError as error:
            return np.asarray(error.ids, dtype=np.intp)
        return np.empty(0, np.intp)

    def load_state(self, state: Array) -> None:
        """What `state` was."""
        self.state[:] = state

    def close(self) -> None:
        """Nothing is left to do."""


class ObjectSimulators:
    """One MjModel and MjData each, with contact forces."""

    def __init__(self, model: mujoco.MjModel, count: int, threads: int) -> None:
        self._models = [model.__copy__() for _ in range(count)]
        self._data = [mujoco.MjData(each) for each in self._models]
        self._spec = mujoco.mjtState.mjSTATE_INTEGRATION
        self._pool = ThreadPoolExecutor(threads or None)
        self.qpos, self.qvel = (np.zeros((count, n)) for n in (model.nq, model.nv))
        self.xpos = np.zeros((count, model.nbody, 3))
        self.cfrc_ext = np.zeros((count, model.nbody, 6))
        self.state: Array = np.zeros((count, mujoco.mj_stateSize(model, self._spec)))

    def step(self, ids: Ids | None, controls: Array, frames: int) -> Ids:
        chosen = np.arange(len(self._data)) if ids is None else ids

        def one(sim: int, control: Array) -> None:
            model, data = self._models[sim], self._data[sim]
            mujoco.mj_setState(model, data, self.state[sim], self._spec)
            data.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=frames)
            mujoco.mj_rnePostConstraint(model, data)

        return self._each(chosen, one, controls)

    def reset(self, ids: Ids, qpos: Array, qvel: Array) -> Ids:
        def one(sim: int, start: tuple[Array, Array]) -> None:
            model, data = self._models[sim], self._data[sim]
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:] = start
            mujoco.mj_forward(model, data)

        return self._each(ids, one, list(zip(qpos, qvel, strict=True)))

    def set_friction(self, sim: int, geoms: Any, friction: tuple[float, float, float]) -> None:
        self._models[sim].geom_friction[geoms] = friction

    def _each(self, ids: Ids, one: Any, given: Any) -> Ids:
        def work(item: tuple[int, Any]) -> bool:
            sim, data = int(item[0]), self._data[int(item[0])]
            try:
                one(sim, item[1])
            except mujoco.FatalError:
                return False
            mujoco.mj_getState(self._models[sim], data, self.state[sim], self._spec)
            self.qpos[sim], self.qvel[sim] = data.qpos, data.qvel
            self.xpos[sim], self.cfrc_ext[sim] = data.xpos, data.cfrc_ext
            return True

        done = list(self._pool.map(work, zip(ids, given, strict=True)))
        return np.asarray([sim for sim, well in zip(ids, done, strict=True) if not well], dtype=np.intp)

    def load_state(self, state: Array) -> None:
        self.state[:] = state

    def close(self) -> None:
        self._pool.shutdown()

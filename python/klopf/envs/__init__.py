"""MuJoCo environments for many runs in lockstep, by Gymnasium's interfaces.

Gymnasium knows them when this is imported: `gymnasium.make_vec("klopf/Ant-v0", num_envs=30)`, and for one
`gymnasium.make("klopf/SlipperyAnt-v0")`.  Rules and options are those of Gymnasium's environments of version
5, but for Ant's: without contact forces and their cost, unless asked for.
"""

from __future__ import annotations

from typing import Any

from klopf.envs.needed import gymnasium

EPISODE_STEPS = 1000
_ANT: dict[str, Any] = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}
_ALL: dict[str, tuple[str, dict[str, Any]]] = {  # what one of them is, and its options
    "Ant": ("gymnasium.envs.mujoco.ant_v5:AntEnv", _ANT),
    "SlipperyAnt": ("klopf.envs.slippery:SlipperyAntEnv", _ANT),
    "Hopper": ("gymnasium.envs.mujoco.hopper_v5:HopperEnv", {}),
    "Walker2d": ("gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv", {}),
    "HalfCheetah": ("gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv", {}),
}
NAMES = tuple(_ALL)


for _name, (_entry, _options) in _ALL.items():
    gymnasium.register(
        f"klopf/{_name}-v0",
        entry_point=_entry,
        vector_entry_point=f"klopf.envs.vector:make_{_name}",
        max_episode_steps=EPISODE_STEPS,
        kwargs=_options,
    )

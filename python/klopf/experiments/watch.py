"""`klopf ant --watch`: an episode of a stored policy, as a GIF or MP4."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klopf import checkpoint
from klopf._core import Error
from klopf.experiments.acting import options_of
from klopf.experiments.results import CHECKPOINT
from klopf.experiments.settings import option, option_of
from klopf.files import atomic_write

KINDS = (".gif", ".mp4")


@dataclass(frozen=True)
class Watching:
    """Looking at a stored policy, which acts without exploring."""

    watch: str | None = option(
        None, "render a policy of a results folder, and do no more", placeholder="FOLDER"
    )
    line: str | None = option(None, "which line's, by its label (default: the last)")
    run: int = option(0, "which run's", minimum=0)
    frames: int = option(200, "steps to render", minimum=1)
    width: int = option(320, "of the picture", minimum=16)
    height: int = option(240, "of the picture", minimum=16)
    movie: str | None = option(None, "a .gif, or .mp4 (default: walk.gif in the folder)", placeholder="FILE")


def watch(asked: Watching) -> tuple[Path, float, int]:
    """Renders it: the file, the return so far, and the steps; an episode that ends is the end.

    Raises kl.Error where the folder has no such policy, the picture cannot be made, or a package is missing.
    """
    assert asked.watch is not None
    target = Path(asked.movie or Path(asked.watch) / "walk.gif")
    if target.suffix not in KINDS:
        raise Error(f"{option_of('movie')} must end in {' or '.join(KINDS)}, got {target}")
    _choose_renderer()
    from klopf.experiments.ant import Plan

    plan = Plan.read(asked.watch, {})
    labels = [line.label for line in plan.lines]
    label = asked.line or labels[-1]
    if label not in labels:
        raise Error(f"{option_of('line')} must be one of {'; '.join(labels)}, got {label}")
    if asked.run >= plan.settings.runs:
        raise Error(f"{option_of('run')} must be below {plan.settings.runs}, got {asked.run}")
    arrays, _ = checkpoint.read(Path(asked.watch) / CHECKPOINT)
    index = labels.index(label)
    env, picture = _made(plan.settings, asked)
    try:
        frames, total = _episode(plan, index, arrays, env, picture, asked)
        fps = float(env.metadata.get("render_fps", 20))
    finally:
        env.close()
    data = _encoded(frames, target.suffix, fps)
    with atomic_write(target, "wb") as file:
        file.write(data)
    return target, total, len(frames)


def _choose_renderer() -> None:
    """MuJoCo takes it from the environment when it is imported."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _made(settings: Any, asked: Watching) -> tuple[Any, Callable[[], Any]]:
    """The environment, and what makes a picture of it."""
    from klopf.envs import NAMES
    from klopf.envs.worlds import explained, identifier

    options = {"disable_env_checker": True, **options_of(settings)}
    with explained(settings.env) as gymnasium:
        if settings.env not in NAMES:
            env = gymnasium.make(settings.env, render_mode="rgb_array", **options)
            return env, env.render
        env = gymnasium.make(identifier(settings.env), **options)
    from klopf.envs.needed import mujoco

    model, data, camera = env.unwrapped.model, env.unwrapped.data, mujoco.MjvCamera()
    model.vis.global_.offwidth, model.vis.global_.offheight = asked.width, asked.height
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
    camera.distance, camera.elevation, camera.azimuth = 4.5, -20.0, 90.0
    renderers: list[Any] = []

    def picture() -> Any:
        if not renderers:
            try:
                renderers.append(mujoco.Renderer(model, asked.height, asked.width))
            except Exception as error:  # as below
                hint = "MUJOCO_GL=egl or MUJOCO_GL=osmesa chooses what renders"
                raise Error(f"[watch] no picture could be made: {error}; {hint}") from error
        renderers[0].update_scene(data, camera)
        return renderers[0].render()

    return env, picture


def _episode(
    plan: Any,
    index: int,
    arrays: dict[str, NDArray[Any]],
    env: Any,
    picture: Callable[[], Any],
    asked: Watching,
) -> tuple[list[NDArray[np.uint8]], float]:
    """The frames, and the return."""
    from klopf.envs.needed import gymnasium
    from klopf.envs.worlds import flattened

    line, prefix = plan.lines[index], f"line{index}/"
    observed, acted = env.observation_space, env.action_space
    flat = gymnasium.spaces.flatdim
    discrete = isinstance(acted, gymnasium.spaces.Discrete)
    agent = line.method.build(flat(observed), flat(acted), discrete, plan.seeds)
    agent.load_state(checkpoint.within(arrays, f"{prefix}agent/"))
    if not agent.alive[asked.run]:
        raise Error(f"[watch] run {asked.run} of {line.label} failed: there is no policy to watch")
    frictions = arrays.get(f"{prefix}world/frictions")
    if frictions is not None:
        env.unwrapped.friction.value = float(frictions[asked.run, 0])
    now, _ = env.reset(seed=None if frictions is not None else plan.seeds[asked.run])
    frames, total = [], 0.0
    for _ in range(asked.frames):
        seen = np.tile(flattened(observed, now), (agent.runs, 1))
        action = agent.choose(seen)[asked.run]
        now, reward, terminated, truncated, _ = env.step(
            int(action) + int(acted.start) if discrete else action.reshape(acted.shape)
        )
        total += float(reward)
        frames.append(_pixels(picture))
        if terminated or truncated:
            break
    return frames, total


def _pixels(picture: Callable[[], Any]) -> NDArray[np.uint8]:
    try:
        return np.array(picture(), dtype=np.uint8)
    except Error:
        raise
    except Exception as error:  # whatever OpenGL, or what stands for it, says
        raise Error(f"[watch] no picture could be made: {error}") from error


def _encoded(frames: list[NDArray[np.uint8]], suffix: str, fps: float) -> bytes:
    from klopf.envs.needed import imageio

    try:
        if suffix == ".gif":
            return bytes(imageio.v3.imwrite("<bytes>", frames, extension=".gif", duration=1000 / fps, loop=0))
        return bytes(imageio.v3.imwrite("<bytes>", frames, extension=".mp4", plugin="FFMPEG", fps=fps))
    except ImportError as error:
        raise Error(f"[watch] {suffix} needs another package ({error}): pip install imageio-ffmpeg") from None
    except (OSError, ValueError) as error:
        raise Error(f"[watch] the {suffix} could not be made: {error}") from error

"""What the environments stand on, or one line that says what is missing."""

from klopf._core import Error

try:
    import gymnasium
    import imageio
    import mujoco
    from mujoco.batch import Batch, SimulationError
except ImportError as error:
    if isinstance(error.__cause__, KeyboardInterrupt):  # which came while a compiled module was loaded
        raise error.__cause__ from None
    raise Error(
        f"[envs] MuJoCo environments need gymnasium, imageio and mujoco of at least 4.0 ({error}): "
        'pip install "gymnasium[mujoco]" "mujoco>=4.0", with Python 3.11 or later'
    ) from None
except Exception as error:  # OpenGL, or what stands for it, which MUJOCO_GL chooses
    raise Error(f"[envs] MuJoCo cannot be imported ({error}); is MUJOCO_GL right?") from error

__all__ = ["Batch", "SimulationError", "gymnasium", "imageio", "mujoco"]

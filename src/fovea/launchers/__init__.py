"""Where the jobs of a command run: on this machine, its GPUs, a SLURM cluster, Ray.

Each job is a command line of its own (`Job`), so a launcher only has to start processes somewhere
and to say how they ended. Results are read from the run folders. Nothing here imports torch or
Hydra, except that `local_gpus` asks torch how many GPUs there are.
"""

from fovea.launchers.job import Job, Launcher
from fovea.launchers.local import BasicLauncher, GpuLauncher, LocalLauncher

__all__ = ["BasicLauncher", "GpuLauncher", "Job", "Launcher", "LocalLauncher"]

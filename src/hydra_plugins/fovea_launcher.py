"""The bridge from Hydra's sweepers to the launchers of ``conf/launcher``.

Hydra finds plugins in the namespace package ``hydra_plugins`` only, and takes the settings of its
launchers from ``hydra.launcher``. This one builds whatever ``launcher`` describes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from fovea.errors import FoveaError
from fovea.launchers.job import exit_status
from fovea.sweeps import outcomes


class FoveaLauncher(Launcher):
    """Hands the jobs of a sweep to the launcher that was chosen.

    Attributes:
        handed_over: whether jobs are in a queue that nobody waits for.
    """

    handed_over = False

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives; ``task_function`` returns a `fovea.launchers.Job`."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Return the objective of each job: NaN if it failed, None if nobody waited for it.

        Raises:
            SystemExit: a job was told to stop; typed again, the command goes on with it.
        """
        setup_globals()
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        # Hydra's own record, with the secrets that ours leave out.
        (folder / "multirun.yaml").unlink(missing_ok=True)
        returns = [
            self._prepare(list(overrides), initial_job_idx + i)
            for i, overrides in enumerate(job_overrides)
        ]
        jobs = [item.return_value for item in returns]
        # A grid is known from the start; the trials of a study depend on each other's results.
        instantiate(self.config.launcher).run(jobs, need_results="sweep" in self.config)
        self.handed_over = any(job.status is None for job in jobs)
        for item, job in zip(returns, jobs, strict=True):
            outcomes.note_end(job.folder, job.status)
            item.return_value = job.objective()
        if (status := exit_status(jobs)) is not None:
            sys.exit(status)
        return returns

    def _prepare(self, overrides: list[str], number: int) -> JobReturn:
        """Return Hydra's record of a job, holding the job instead of a result."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        if config.launcher != self.config.launcher:
            raise FoveaError(
                f"launcher: all jobs of a sweep are launched alike, but '{' '.join(overrides)}' "
                "asks for another way (or other devices than the rest). Make it a sweep of its own."
            )
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

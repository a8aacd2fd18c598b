"""Where Hydra looks for plugins, and the only name it takes one from; the work is in `fovea`.

Hydra imports this file each time a command starts, so nothing slow is imported at the top.
"""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class FoveaSweeper(BasicSweeper):
    """Hydra's basic sweep with a table at its end, or with ``sweep=<space>`` a study."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs or trials that ``arguments``, overrides with sweeps, ask for."""
        from fovea.sweeps import basic, sweeper

        assert self.config is not None
        assert self.launcher is not None
        if "sweep" in self.config:
            return sweeper.run_study(self.config, arguments, self.launcher)
        basic.record(self.config, arguments)
        returns = super().sweep(arguments)
        if getattr(self.launcher, "handed_over", False):
            return returns  # there is nothing to report yet
        assert self.overrides is not None
        basic.report(self.config, [job for batch in self.overrides for job in batch])
        return returns

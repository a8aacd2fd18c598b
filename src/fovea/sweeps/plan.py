"""What a sweep is to do: its configuration read into settings, a space and a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fovea.errors import FoveaError
from fovea.safety.redaction import redact, redact_words
from fovea.sweeps.checking import APART, OPEN, RECORD
from fovea.sweeps.parameters import text_of
from fovea.sweeps.sampling import Settings
from fovea.sweeps.spaces import Space


class Plan:
    """A sweep as it is configured.

    Args:
        config: composed by Hydra, its own node included.
        words: overrides of the command line.

    Attributes:
        folder: of the sweep, absolute.
        settings: of the study.
        space: what trials choose from.
        objectives: {name: "min" or "max"}.
        seeds: of each trial; [None] leaves it to ``seed``.
        workers: at a time; None: as many as the launcher has places.
        retry_failed: whether to run failed trials once more.
    """

    def __init__(self, config: DictConfig, words: list[str]) -> None:
        self._config = config
        sweep: Any = OmegaConf.to_container(config.sweep, resolve=True)
        monitor = {str(config.monitor.metric): str(config.monitor.mode)}
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.objectives: dict[str, str] = sweep["objectives"] or monitor
        self.space = Space(sweep["space"], sweep["fixed"], words)
        self.seeds: list[int | None] = sweep["seeds"] or [None]
        self.workers: int | None = sweep["workers"]
        self.retry_failed: bool = sweep["retry_failed"]
        # The callback reports the monitored metric alone: judged by another, no report would tell.
        self._reports = self.objectives == monitor
        self.settings = Settings(
            n_trials=sweep["n_trials"],
            sampler=sweep["sampler"],
            pruner=sweep["pruner"] if self._reports else "none",
            objectives=self.objectives,
            seed=sweep["seed"],
            startup_trials=sweep["startup_trials"],
            warmup_epochs=sweep["warmup_epochs"],
            max_epochs=int(config.trainer.max_epochs),
        )
        self._record = {
            **{key: redact(value) for key, value in sweep.items() if key not in OPEN},
            "objectives": self.objectives,
            "shared": redact_words([w for w in self.space.shared if not w.startswith(APART)]),
        }

    def default(self, key: str) -> str | None:
        """Return what the configuration has for ``key``, a group or a setting, as typed."""
        choices = self._config.hydra.runtime.choices
        value = choices[key] if key in choices else OmegaConf.select(self._config, key)
        return text_of(value)

    def name_of(self, number: int, seed: int | None) -> str:
        """Return the name of a run folder."""
        return str(number) if seed is None else f"{number}_seed{seed}"

    def runs(self, number: int) -> list[Path]:
        """Return the run folders of a trial, one for each seed."""
        return [self.folder / self.name_of(number, seed) for seed in self.seeds]

    def own(self, number: int, seed: int | None) -> list[str]:
        """Return the overrides that make a run one of this sweep: folder, seed, reports.

        One that was cut off goes on.
        """
        monitor = self._config.monitor.metric
        node = {
            "_target_": "fovea.sweeps.pruning.Pruning",
            "study": str(self.folder),
            "trial": number,
            "monitor": str(monitor),
            "report": self._reports and seed == self.seeds[0],
        }
        words = [f"hydra.sweep.subdir={self.name_of(number, seed)}", "resume=auto"]
        words += [f"++callbacks.pruning.{key}={_quoted(value)}" for key, value in node.items()]
        return words if seed is None else [*words, f"seed={seed}"]

    def record(self) -> None:
        """Write sweep.yaml; where there is one already, it must say the same.

        Raises:
            FoveaError: the folder holds another sweep.
        """
        path = self.folder / RECORD
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # Several workers may start at a time: the first one writes.
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
                yaml.safe_dump(self._record, file, sort_keys=False, allow_unicode=True)
        except FileExistsError:
            there = yaml.safe_load(path.read_text()) or self._record
            different = [key for key in self._record if there.get(key) != self._record[key]]
            if different:
                raise FoveaError(
                    f"{self.folder} holds a sweep with another {', '.join(different)}: see "
                    f"{path}. Give this one a name of its own: sweep.name=…"
                ) from None


def _quoted(value: Any) -> str:
    if isinstance(value, bool | int):
        return text_of(value) or ""
    return "'" + str(value).replace("'", r"\'") + "'"

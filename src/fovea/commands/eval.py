"""``python src/eval.py``: checkpoints, published weights, or kept predictions, judged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from fovea import console, run_folder
from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.experiment import make_trainer, plain_config
from fovea.judging.candidates import Candidate, build_candidate
from fovea.judging.duplicates import Known
from fovea.judging.judge import judge
from fovea.judging.references import find_checkpoints
from fovea.judging.remaking import load, load_all, load_val, remake
from fovea.judging.reporting import headline
from fovea.judging.several import Outcome, finish, judge_each, judge_ensemble, load_kept
from fovea.machine import devices
from fovea.tracking import environment_record

log = logging.getLogger("fovea")


def run(cfg: DictConfig, overrides: list[str]) -> None:
    """Evaluate as ``cfg`` says; print the metrics and write the reports into ``cfg.paths.run``.

    One model's report is in that folder; of several models each has a folder in it, and the page
    in that folder has a row for each.

    Raises:
        FoveaError: nothing to evaluate, something that is not there, classes or head that do not
            fit the data; some of several models failed (after the others were judged).
    """
    if cfg.predictions is not None:
        _remake(cfg, overrides)
        return
    devices.check(cfg.trainer.accelerator, cfg.trainer.devices)
    found = {} if cfg.ckpt is None else find_checkpoints(_plain(cfg.ckpt))
    if len(found) > 1:
        _evaluate_several(cfg, overrides, found)
    else:
        _check_ensemble(cfg, len(found))
        _evaluate(cfg, overrides, next(iter(found.values()), None))


def _evaluate(cfg: DictConfig, overrides: list[str], reference: str | None) -> None:
    """Judge one model."""
    folder = Path(cfg.paths.run)
    candidate = _build(cfg, reference)
    trainer = _make_trainer(cfg)
    run_folder.check_writable(folder)
    if devices.is_main_process():
        _begin(candidate.config, overrides, candidate)
    predictions = judge(candidate, trainer, folder)
    if predictions is not None:
        _end(cfg, predictions, ckpt=reference, views=predictions.about["views"])


def _evaluate_several(cfg: DictConfig, overrides: list[str], found: dict[str, str]) -> None:
    """Judge each of several checkpoints, and their ensemble if that is asked for."""
    folder, trainer = Path(cfg.paths.run), _make_trainer(cfg)
    run_folder.check_writable(folder)
    if devices.is_main_process():
        _begin(cfg, overrides, None)

    known: Known = {}
    data: ImageDataModule | None = None

    def judge_one(name: str) -> Predictions | None:
        nonlocal data
        candidate = _build(cfg, found[name])
        data = candidate.data
        if devices.is_main_process():
            log.info("\n%s", name)
            console.print_rows([*candidate.data.describe(), *candidate.rows])
        return judge(candidate, trainer, folder / name, known)

    outcomes = list(judge_each(list(found), judge_one))
    if devices.is_main_process():
        if cfg.ensemble:
            good = [outcome for outcome in outcomes if outcome.error is None]
            outcomes.append(
                judge_ensemble(
                    folder,
                    good,
                    lambda name, split: load_kept(folder, name, split),
                    cfg.split,
                    data,
                )
            )
        _end_several(cfg, outcomes, cfg.split, ckpt=list(found.values()))


def _remake(cfg: DictConfig, overrides: list[str]) -> None:
    """Write the reports anew from kept predictions."""
    if cfg.ckpt is not None or cfg.get("model") is not None or cfg.get("data") is not None:
        raise FoveaError(
            "predictions= makes the report from what was kept, without network or data set: leave "
            "ckpt=, model= and data= out, or predictions= to predict anew."
        )
    folder = Path(cfg.paths.run)
    files = load_all(_plain(cfg.predictions), cfg.split)
    _check_ensemble(cfg, len(files))
    run_folder.check_writable(folder)
    _begin(cfg, overrides, None)
    if len(files) == 1:
        path = next(iter(files.values()))
        _end(cfg, remake(path, cfg.split, folder, cfg.calibrate), predictions=str(path))
        return
    outcomes = list(
        judge_each(
            list(files), lambda name: remake(files[name], cfg.split, folder / name, cfg.calibrate)
        )
    )
    split = next((o.about["split"] for o in outcomes if o.error is None), cfg.split)

    def kept(name: str, of: str) -> Predictions | None:
        predictions = load(files[name], cfg.split)
        return predictions if of == split else load_val(files[name], predictions)

    if cfg.ensemble:
        good = [outcome for outcome in outcomes if outcome.error is None]
        outcomes.append(judge_ensemble(folder, good, kept, split))
    _end_several(cfg, outcomes, split, predictions=[str(path) for path in files.values()])


def _build(cfg: DictConfig, reference: str | None) -> Candidate:
    """Return the candidate; what is drawn on the way does not depend on those before it."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    return build_candidate(cfg, reference)


def _make_trainer(cfg: DictConfig) -> lightning.Trainer:
    return make_trainer(cfg.trainer, Path(cfg.paths.run), logger=False, enable_checkpointing=False)


def _check_ensemble(cfg: DictConfig, count: int) -> None:
    if cfg.ensemble and count < 2:
        raise FoveaError(
            "ensemble=true takes the mean of several models, and there is one. Give a list: "
            "ckpt=[outputs/<run>,outputs/<other run>]"
        )


def _plain(value: Any) -> Any:
    """Return a string, or a plain list."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _begin(cfg: DictConfig, overrides: list[str], candidate: Candidate | None) -> None:
    """Record what is done, and print it."""
    folder = Path(cfg.paths.run)
    run_folder.write_record(folder, plain_config(cfg), overrides, environment_record())
    log.info("\nfovea: %s", folder.name)
    rows = [] if candidate is None else [*candidate.data.describe(), *candidate.rows]
    console.print_rows([*rows, ("split", cfg.split)])


def _end(cfg: DictConfig, found: Predictions, /, **fields: Any) -> None:
    """Write summary.json, and print the scores and where the report is."""
    folder, about = Path(cfg.paths.run), found.about
    run_folder.write_summary(
        folder,
        state="finished",
        metrics=about["metrics"],
        split=about["split"],
        **{**about.get("cost", {}), **fields},
    )
    log.info("")
    console.print_rows([*headline(found).items(), *_cost_rows(about.get("cost", {}))])
    console.print_rows([("report", console.shorten(folder / "report.html"))])


def _end_several(cfg: DictConfig, outcomes: list[Outcome], split: str, **fields: Any) -> None:
    """Write the overview and summary.json, and print the scores and where they are."""
    folder = Path(cfg.paths.run)
    log.info("")
    try:
        finish(folder, outcomes, split, **fields)
    finally:
        console.print_rows([("report", console.shorten(folder / "report.html"))])


def _cost_rows(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a network costs in a line."""
    if not cost:
        return []
    words = [f"{cost['parameters'] / 1e6:.2f} M parameters"]
    if cost.get("flops"):
        words.append(f"{cost['flops'] / 1e9:.3g} GFLOPs an image (2 a multiply-add)")
    if "latency_ms" in cost:
        words.append(f"{cost['images_per_second']:,.0f} images/s")
        words.append(f"{cost['latency_ms']:.2f} ms for one, on {cost['device']}")
    return [("cost", ", ".join(words))]

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf

from fovea.errors import FoveaError
from fovea.tracking import WandbRun

LOGGERS = Path(__file__).parents[2] / "conf" / "logger"


def build(names: list[str], folder: Path) -> dict:
    """Instantiate choices of conf/logger as a run would, with the keys they read."""
    cfg = OmegaConf.create(
        {"run_id": "an-id", "group": "a-group", "tags": ["x"], "paths": {"run": str(folder)}}
    )
    choices = [OmegaConf.load(LOGGERS / f"{name}.yaml") for name in names]
    cfg.logger = OmegaConf.merge(*choices)
    return instantiate(cfg.logger, _convert_="all")


def test_every_choice_is_known_here_and_explains_itself() -> None:
    assert sorted(path.stem for path in LOGGERS.glob("*.yaml")) == [
        "csv", "none", "tensorboard", "wandb",
    ]  # fmt: skip
    for path in LOGGERS.glob("*.yaml"):
        assert path.read_text().startswith("# ")


def test_choices_combine(tmp_path) -> None:
    loggers = build(["wandb", "tensorboard", "csv", "none"], tmp_path)
    assert isinstance(loggers["wandb"], WandbRun)
    assert isinstance(loggers["tensorboard"], TensorBoardLogger)
    assert len(loggers) == 2


def test_the_group_composes_several_choices(tmp_path) -> None:
    (tmp_path / "main.yaml").write_text("defaults:\n  - logger: [wandb]\n")
    (tmp_path / "logger").symlink_to(LOGGERS)
    with initialize_config_dir(str(tmp_path), version_base=None):
        assert list(compose("main").logger) == ["wandb"]
        both = compose("main", overrides=["logger=[tensorboard,wandb]"])
        assert sorted(both.logger) == ["tensorboard", "wandb"]
        assert not compose("main", overrides=["logger=none"]).get("logger")


def test_tensorboard_writes_into_the_run_folder(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    logger = build(["tensorboard"], tmp_path)["tensorboard"]
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_missing_tensorboard_names_the_command(tmp_path, monkeypatch) -> None:
    import lightning.fabric.loggers.tensorboard as module

    monkeypatch.setattr(module, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(module, "_TENSORBOARDX_AVAILABLE", False)
    from fovea.tracking import tensorboard_logger

    with pytest.raises(FoveaError, match="pip install tensorboard"):
        tensorboard_logger(tmp_path)

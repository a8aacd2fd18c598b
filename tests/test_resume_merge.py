"""What may change when a run is gone on with, and what then holds."""

import pytest
from omegaconf import OmegaConf, open_dict

from fovea.arguments import compose_checked
from fovea.errors import FoveaError
from fovea.resume import merge


def saved_run(*words):
    cfg = compose_checked("train", list(words))
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


def merged(saved, *words):
    cfg = compose_checked("train", list(words))
    with open_dict(cfg):
        cfg.resume = "outputs/a"
    return merge(cfg, saved, list(words))


def test_another_trainer_changes_where_it_runs_and_nothing_else():
    saved = saved_run("trainer.max_epochs=4", "trainer.accumulate_grad_batches=2")
    cfg = merged(saved, "trainer=ddp_cpu")
    assert (cfg.trainer.accelerator, cfg.trainer.devices) == ("cpu", 2)
    assert cfg.trainer.strategy.process_group_backend == "gloo"
    assert (cfg.trainer.max_epochs, cfg.trainer.accumulate_grad_batches) == (4, 2)


def test_other_devices_may_need_another_accumulation():
    cfg = merged(saved_run(), "trainer.devices=1", "trainer.accumulate_grad_batches=4")
    assert (cfg.trainer.devices, cfg.trainer.accumulate_grad_batches) == (1, 4)


def test_what_only_watches_a_run_may_change_or_be_new_to_it():
    cfg = merged(saved_run("~callbacks.progress"), "callbacks.progress.refresh_s=9")
    assert cfg.callbacks.progress == {"_target_": "fovea.tracking.ProgressBar", "refresh_s": 9}


def test_a_longer_run_freezes_nothing_again():
    saved = saved_run("freeze=gradual", "trainer.max_epochs=5")
    cfg = merged(saved, "trainer.max_epochs=12")
    assert cfg.trainer.max_epochs == 12
    assert [phase.epoch for phase in cfg.freeze.phases] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "word",
    [
        "trainer.precision=bf16-mixed", "debug=overfit",
        "experiment=cifar10_resnet18", "data.val_fraction=0.3", "freeze=lp_ft", "model.stem=small",
        "callbacks=[default,ema]", "model=alexnet", "data.batch_size=16", "freeze=head_only",
    ],
)  # fmt: skip
def test_what_would_break_the_state_or_be_ignored_is_refused(word):
    with pytest.raises(FoveaError, match=word.split("=")[0]):
        merged(saved_run(), word)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(FoveaError, match=r"seed .*optimizer\.lr"):
        merged(saved_run(), "seed=3", "optimizer.lr=0.5")

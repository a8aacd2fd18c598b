"""What fits is told and used; the global batch stays."""

import pytest
import torch

from fovea.experiment import build, compose
from fovea.machine.accumulation import largest_micro_batch
from fovea.models import Backbone
from fovea.tuning.batch_size import describe_largest, largest_by_count, leave_accumulation_open
from process import folder_of, run

TINY = ("model=timm", "model.name=test_resnet", "data.batch_size=32", "logger=none")


def limit_memory(monkeypatch, images):
    real = Backbone.forward

    def forward(backbone, batch):
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(backbone, batch)

    monkeypatch.setattr(Backbone, "forward", forward)


@pytest.fixture
def experiment(tmp_path):
    cfg = compose([*TINY, "data.limit_per_class=16", "trainer.accumulate_grad_batches=2"])
    cfg.paths.run = str(tmp_path)
    return build(cfg)


@pytest.mark.parametrize(("limit", "found"), [(16, 16), (21, 21), (93, 93), (130, 127), (999, 160)])
def test_the_largest_is_found_to_a_sixteenth_and_no_trace_is_left(
    experiment, monkeypatch, limit, found
):
    limit_memory(monkeypatch, limit)
    before = {name: value.clone() for name, value in experiment.task.state_dict().items()}
    state = torch.get_rng_state()
    largest = largest_micro_batch(experiment.task, experiment.data, experiment.trainer, 1, False)
    assert largest <= min(limit, 160)
    assert largest >= found * 15 / 16
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], v) for n, v in experiment.task.state_dict().items())


def test_the_count_on_a_cpu_is_the_free_memory_over_what_an_image_keeps(experiment):
    task, data = experiment.task, experiment.data
    count = sum(p.numel() for p in task.parameters())
    fixed = 4 * count + 8 * count + 4 * len(list(task.parameters()))  # gradients; AdamW's state
    state = torch.get_rng_state()
    few = largest_by_count(task, data, fixed + 5e6, averaged=False)
    assert torch.equal(state, torch.get_rng_state())
    many = largest_by_count(task, data, fixed + 10e6, averaged=False)
    assert 0 < few < many <= 2 * few + 1
    assert largest_by_count(task, data, fixed + 4 * count + 5e6, averaged=True) == few
    assert largest_by_count(task, data, 1e12, averaged=False) == 160


def test_a_number_that_was_given_is_left_open_and_the_row_says_what_stays(experiment, monkeypatch):
    cfg = compose([*TINY, "trainer.accumulate_grad_batches=4"])
    leave_accumulation_open(cfg)
    assert cfg.trainer.accumulate_grad_batches == "auto"
    monkeypatch.setattr("fovea.tuning.batch_size.free_memory", lambda: 12e6)
    label, text = describe_largest(cfg, experiment)
    assert label == "largest batch"
    assert "the run takes 16; data.batch_size=32" in text


def test_the_command_tells_it_and_records_what_it_used(tmp_path):
    words = (*TINY, "data.limit_per_class=16", "trainer.max_epochs=1", "tune.batch_size=true")
    done = run("train", *words, "trainer.accumulate_grad_batches=2", cwd=tmp_path)
    assert "tune.batch_size: trainer.accumulate_grad_batches 2 -> auto" in done.stdout
    assert "largest batch" in done.stdout
    assert "the run takes 32; data.batch_size=32" in done.stdout
    config = (folder_of(done, tmp_path) / "config.yaml").read_text()
    assert "accumulate_grad_batches: 1" in config
    assert "batch_size: 32" in config

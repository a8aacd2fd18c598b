"""``eval.py`` under corruption, on the harder test sets, with ReaL labels."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fovea.data import imagenet_classes
from fovea.data.imagenet_tests import test_set_folders as folders_of
from process import folder_of, run

QUIET = ("cost=false", "calibrate=false", "data.num_workers=0")
NET = ("model=timm", "model.name=test_resnet", "trainer=cpu")
GREY = ("data.image_size=32", "data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]")


@pytest.mark.slow
def test_a_table_of_corruptions_on_one_and_two_ranks(trained, tmp_path):
    checkpoint, _ = trained
    asked = (
        "corruptions=[contrast,shot_noise]",
        "severities=[5,1]",
        "cost=false",
        "calibrate=false",
    )
    tables = []
    for ranks in (1, 2):
        done = run("eval", f"ckpt={checkpoint}", *asked, "trainer=ddp_cpu",
                   f"trainer.devices={ranks}", "batch_size=48", cwd=tmp_path)  # fmt: skip
        folder = folder_of(done, tmp_path)
        tables.append(pd.read_csv(folder / "corruptions_by_severity.csv"))
    pd.testing.assert_frame_equal(*tables)
    rows = tables[0]
    assert rows["corruption"].tolist() == ["clean", *["shot_noise"] * 2, *["contrast"] * 2]
    assert rows["severity"].tolist() == [0, 1, 5, 1, 5]
    clean = json.loads((folder / "summary.json").read_text())["metrics"]["test/top1"]
    assert rows["top1"][0] == pytest.approx(clean)
    assert rows["top1"].iloc[-1] != rows["top1"][0]
    paper = pd.read_csv(folder / "corruptions.csv").iloc[0]
    assert paper["contrast"] == pytest.approx(rows["error"].iloc[-2:].mean())
    assert "Under corruption" in (folder / "report.html").read_text()
    assert (folder / "corruptions.png").stat().st_size > 10_000


def weights_of(path, num_classes):
    """Write weights of a network that sees nothing but the mean colour."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=num_classes)
    torch.save(model.state_dict(), path)
    return path


def test_imagenet_a_masked_and_real_labels(tmp_path):
    from fovea.experiment import compose, make_trainer
    from fovea.judging.candidates import build_candidate
    from fovea.judging.harder import find_real_labels, score_real_labels
    from fovea.judging.judge import judge

    weights = weights_of(tmp_path / "net.pt", 1000)
    wnids, names = list(imagenet_classes()), imagenet_classes()
    a = list(folders_of("a"))
    for number, wnid in enumerate([a[3], a[150]]):
        picture(tmp_path / "a" / wnid / "x.jpg", number)
        picture(tmp_path / "in" / "val" / wnid / f"ILSVRC2012_val_0000000{number + 1}.JPEG", number)
    (tmp_path / "real.json").write_text(json.dumps([list(range(1000)), []]))

    def judged(name, *words):
        cfg = compose([*NET, *GREY, f"model.weights={weights}", *QUIET, *words], "eval")
        folder = tmp_path / name
        candidate = build_candidate(cfg, None)
        trainer = make_trainer(cfg.trainer, folder, logger=False, enable_checkpointing=False)
        return judge(candidate, trainer, folder), candidate

    masked, _ = judged(
        "ev_a", "data=imagenet_a", f"data.root={tmp_path / 'a'}", "data.classes=some"
    )
    whole, candidate = judged(
        "ev_in", "data=imagenet", f"data.root={tmp_path / 'in'}", "data.classes=some", "split=val",
        f"real_labels={tmp_path / 'real.json'}",
    )  # fmt: skip
    assert masked.class_names == tuple(names[wnid] for wnid in a)
    assert masked.labels.tolist() == [3, 150]
    columns = [wnids.index(wnid) for wnid in a]
    assert torch.allclose(masked.logits, whole.logits[:, columns], atol=1e-5)
    assert whole.about["metrics"]["val/real_top1"] == 1
    assert whole.about["metrics"]["val/real_samples"] == 1
    numbers = find_real_labels(candidate.data, "val", str(tmp_path / "real.json"))
    assert score_real_labels(whole, numbers)["val/real_top1"] == 1


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def test_cifar_c_as_distributed_is_evaluated_whole(tmp_path):
    root, random = tmp_path / "c10c", np.random.default_rng(0)
    root.mkdir()
    labels = random.integers(0, 10, 8)
    np.save(root / "labels.npy", np.tile(labels, 5))
    for name in ("fog", "jpeg_compression"):
        np.save(root / f"{name}.npy", random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    weights = weights_of(tmp_path / "net.pt", 10)
    words = (*NET, *GREY, f"model.weights={weights}", "data=cifar10_c", f"data.root={root}", *QUIET)
    folder = folder_of(run("eval", *words, cwd=tmp_path), tmp_path)
    rows = pd.read_csv(folder / "corruptions_by_severity.csv")
    assert rows["corruption"].tolist() == ["fog"] * 5 + ["jpeg_compression"] * 5
    assert rows["samples"].eq(8).all()
    by_hand = [top1_of(weights, root, row.corruption, row.severity) for row in rows.itertuples()]
    assert rows["top1"].tolist() == by_hand
    paper = pd.read_csv(folder / "corruptions.csv")
    assert list(paper) == ["model", "mean_error", "fog", "jpeg_compression"]
    lacking = run("eval", *words, "corruptions=snow", cwd=tmp_path, check=False)
    assert lacking.returncode == 2
    assert "CIFAR-10-C" in lacking.stderr + lacking.stdout
    assert "has no snow, severity 1" in lacking.stderr + lacking.stdout


def top1_of(weights, root, corruption, severity):
    """Return what plain torch and NumPy make of the files."""
    import timm

    model = timm.create_model("test_resnet", num_classes=10).eval()
    model.load_state_dict(torch.load(weights))
    rows = slice(8 * (severity - 1), 8 * severity)
    images = torch.from_numpy(np.load(root / f"{corruption}.npy")[rows]).permute(0, 3, 1, 2)
    with torch.no_grad():
        predicted = model((images / 255 - 0.5) / 0.5).argmax(1)
    return (predicted.numpy() == np.load(root / "labels.npy")[rows]).mean()

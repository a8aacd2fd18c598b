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
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["test/mean_corruption_error"] == pytest.approx(paper["mean_error"])
    assert metrics["test/error_contrast"] == pytest.approx(paper["contrast"])


def judged(folder, *words, spoil=lambda: None):
    """Return the predictions of a judged candidate, and the candidate."""
    from fovea.experiment import compose, make_trainer
    from fovea.judging.candidates import build_candidate
    from fovea.judging.judge import judge

    cfg = compose([*NET, *GREY, *QUIET, *words], "eval")
    candidate = build_candidate(cfg, None)
    spoil()
    trainer = make_trainer(cfg.trainer, folder, logger=False, enable_checkpointing=False)
    return judge(candidate, trainer, folder), candidate


def weights_of(path, num_classes):
    """Write weights of a network that sees nothing but the mean colour."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=num_classes)
    torch.save(model.state_dict(), path)
    return path


def test_imagenet_a_masked_and_real_labels(tmp_path):
    from fovea.judging.harder import find_real_labels, score_real_labels
    from fovea.judging.several import Outcome

    weights = weights_of(tmp_path / "net.pt", 1000)
    wnids, names = list(imagenet_classes()), imagenet_classes()
    a = list(folders_of("a"))
    for number, wnid in enumerate([a[3], a[150]]):
        picture(tmp_path / "a" / wnid / "x.jpg", number)
        picture(tmp_path / "in" / "val" / wnid / f"ILSVRC2012_val_0000000{number + 1}.JPEG", number)
    (tmp_path / "real.json").write_text(json.dumps([list(range(1000)), []]))

    net = f"model.weights={weights}"
    masked, _ = judged(
        tmp_path / "ev_a",
        net,
        "data=imagenet_a",
        f"data.root={tmp_path / 'a'}",
        "data.classes=some",
    )
    whole, candidate = judged(
        tmp_path / "ev_in", net, "data=imagenet", f"data.root={tmp_path / 'in'}",
        "data.classes=some", "split=val", f"real_labels={tmp_path / 'real.json'}",
    )  # fmt: skip
    assert masked.class_names == tuple(names[wnid] for wnid in a)
    assert masked.labels.tolist() == [3, 150]
    columns = [wnids.index(wnid) for wnid in a]
    assert torch.allclose(masked.logits, whole.logits[:, columns], atol=1e-5)
    assert whole.about["metrics"]["val/real_top1"] == 1
    assert whole.about["metrics"]["val/real_samples"] == 1
    numbers = find_real_labels(candidate.data, "val", str(tmp_path / "real.json"))
    assert score_real_labels(whole, numbers)["val/real_top1"] == 1
    assert "ReaL labels" in (tmp_path / "ev_in" / "report.html").read_text()
    assert Outcome.of("net", whole).row()["ReaL top1"] == 1
    assert "ReaL top1" not in Outcome.of("net", masked).row()


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


@pytest.fixture
def cifar_c(tmp_path):
    root, random = tmp_path / "c10c", np.random.default_rng(0)
    root.mkdir()
    labels = random.integers(0, 10, 8)
    np.save(root / "labels.npy", np.tile(labels, 5))
    for name in ("fog", "jpeg_compression"):
        np.save(root / f"{name}.npy", random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    return root


def test_cifar_c_as_distributed_is_evaluated_whole(tmp_path, cifar_c):
    root = cifar_c
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
    for file in ("summary.json", "metrics.json"):
        content = json.loads((folder / file).read_text())
        metrics = content.get("metrics", content)
        assert metrics["test/mean_corruption_error"] == pytest.approx(rows["error"].mean())
        assert metrics["test/error_fog"] == pytest.approx(rows["error"][:5].mean())
    assert "is of fog, severity 1, alone" in (folder / "report.md").read_text()
    lacking = run("eval", *words, "corruptions=snow", cwd=tmp_path, check=False)
    assert lacking.returncode == 2
    assert "CIFAR-10-C" in lacking.stderr + lacking.stdout
    assert "has no snow, severity 1" in lacking.stderr + lacking.stdout


def test_a_bad_version_leaves_the_others(tmp_path, cifar_c):
    from fovea.errors import FoveaError
    from fovea.evaluation import Predictions
    from fovea.judging.remaking import remake

    net = f"model.weights={weights_of(tmp_path / 'net.pt', 10)}"
    words = (net, "data=cifar10_c", f"data.root={cifar_c}", "severities=[2,4]")
    bad = cifar_c / "jpeg_compression.npy"
    folder = tmp_path / "ev"
    found, candidate = judged(folder, *words, spoil=lambda: bad.write_bytes(b"no array"))
    assert (candidate.data.version.name, candidate.data.version.severity) == ("fog", 2)
    rows = pd.read_csv(folder / "corruptions_by_severity.csv")
    assert rows[["corruption", "severity"]].to_numpy().tolist() == [["fog", 2], ["fog", 4]]
    assert found.about["metrics"]["test/error_fog"] == pytest.approx(rows["error"].mean())
    page = (folder / "report.md").read_text()
    assert "jpeg\\_compression, severity 4, was not measured" in page
    assert Predictions.load(folder / "predictions" / "test.npz").about["warnings"]
    # The report made anew has the section and the warnings as well.
    remake(folder / "predictions" / "test.npz", "test", tmp_path / "again", calibrate=False)
    assert "Under corruption" in (tmp_path / "again" / "report.html").read_text()
    assert "was not measured" in (tmp_path / "again" / "report.md").read_text()
    # What is bad from the start is told before anything is predicted.
    with pytest.raises(FoveaError, match=r"jpeg_compression\.npy can't be read"):
        judged(tmp_path / "other", *words)
    assert not (tmp_path / "other").exists()


def test_several_crops_of_corrupted_images_are_refused_before_any_pass():
    from fovea.data import DigitsDataModule
    from fovea.data.several_views import make_views
    from fovea.errors import FoveaError
    from fovea.judging.harder import plan_corruptions

    data = DigitsDataModule(num_workers=0, crop_ratio=0.8)
    data.views = make_views("ten_crop", data.preprocessing, data.hflip)
    assert plan_corruptions(data, None, [1]) == []
    with pytest.raises(FoveaError, match="views=ten_crop: corruptions are defined for the centre"):
        plan_corruptions(data, "fog", [1])


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

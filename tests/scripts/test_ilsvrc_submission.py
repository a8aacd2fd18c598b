"""Submissions to ILSVRC2012, with a small devkit whose class numbers are not in wnid order."""

import dataclasses
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets.imagenet as reference
from scipy.io import savemat
from sklearn.metrics import top_k_accuracy_score

from fovea.data import imagenet_classes
from fovea.evaluation import Predictions
from process import environment

SCRIPT = Path(__file__).parents[2] / "scripts" / "ilsvrc_submission.py"
IMAGES, CLASSES = 60, 12
NAMES = dict(list(imagenet_classes().items())[:CLASSES])
WNIDS = list(NAMES)  # sorted, as networks number their outputs
ID_OF = {wnid: 1 + (7 * place + 3) % CLASSES for place, wnid in enumerate(WNIDS)}
LABELS = torch.randint(CLASSES, (IMAGES,), generator=torch.Generator().manual_seed(0))
TRUTH = [ID_OF[WNIDS[label]] for label in LABELS.tolist()]


def submission(*words, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        cwd=cwd, capture_output=True, text=True, timeout=300, env=environment(),
    )  # fmt: skip


def meta_mat():
    """The struct array of the real kit: classes first, by ID, then the inner nodes."""
    fields = "ILSVRC2012_ID WNID words gloss num_children children wordnet_height num_train_images"
    synsets = np.empty(CLASSES + 1, dtype=[(field, object) for field in fields.split()])
    for wnid, number in ID_OF.items():
        synsets[number - 1] = (number, wnid, NAMES[wnid], "gloss", 0, np.empty((1, 0)), 0, 1300)
    children = np.arange(1, CLASSES + 1)
    synsets[-1] = (CLASSES + 1, "n00001740", "entity", "gloss", CLASSES, children, 19, 0)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    archive = tmp_path_factory.mktemp("devkit") / "ILSVRC2012_devkit_t12.tar.gz"
    truth = "".join(f"{number}\n" for number in TRUTH).encode()
    contents = {"meta.mat": meta_mat(), "ILSVRC2012_validation_ground_truth.txt": truth}
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive


def network(seed, strength):
    """Return predictions, the images in the order of their class folders, as a data set lists."""
    noise = torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(seed))
    logits = noise + strength * torch.nn.functional.one_hot(LABELS, CLASSES)
    order = LABELS.argsort(stable=True)
    paths = [f"/data/val/{WNIDS[LABELS[i]]}/ILSVRC2012_val_{i + 1:08d}.JPEG" for i in order]
    return Predictions(
        indices=torch.arange(IMAGES),
        labels=LABELS[order],
        logits=logits[order],
        paths=tuple(paths),
        class_names=tuple(NAMES.values()),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two networks: one as data=imagenet names classes, one by wnid and in another order."""
    folder = tmp_path_factory.mktemp("predictions")
    first, second = network(1, 1.0), network(2, 0.7)
    first.save(folder / "first.npz")
    shuffled = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(3))
    place = shuffled.argsort()
    Predictions(
        indices=second.indices,
        labels=place[second.labels],
        logits=second.logits[:, shuffled],
        paths=tuple(path.replace("/data", "/elsewhere") for path in second.paths),
        class_names=tuple(WNIDS[k] for k in shuffled.tolist()),
    ).save(folder / "second.npz")
    return folder


def test_a_submission_has_the_devkits_ids_and_order(devkit, saved, tmp_path, monkeypatch, capsys):
    writing = ("write", saved / "first.npz", "--devkit", devkit, "--out", "sub.txt")
    done = submission(*writing, "--images", IMAGES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [[int(w) for w in s.split(" ")] for s in (tmp_path / "sub.txt").open()]
    network_1 = network(1, 1.0)
    by_image = {int(p[-13:-5]): row for p, row in zip(network_1.paths, network_1.logits)}  # noqa: B905
    expected = [
        [ID_OF[WNIDS[k]] for k in np.argsort(-by_image[number].numpy())[:5]]
        for number in range(1, IMAGES + 1)
    ]
    assert lines == expected

    reference_truth = val_wnids(devkit, tmp_path)
    assert reference_truth == [WNIDS[label] for label in LABELS.tolist()]
    scoring = ("score", tmp_path / "sub.txt", "--devkit", devkit)
    status, out, err = in_process(*scoring, m=monkeypatch, c=capsys)
    assert status == 0, err
    for k in (1, 2, 3, 4, 5):
        hits = top_k_accuracy_score(network_1.labels, network_1.logits, k=k, labels=range(CLASSES))
        line = next(s for s in out.splitlines() if f"with {k} guess" in s)
        assert f"{100 * (1 - hits):.3f} %" in line
    assert 0 < 1 - hits < 0.9


def val_wnids(devkit, folder):
    """The val labels as torchvision reads a devkit."""
    unpatched = reference._verify_archive
    reference._verify_archive = lambda *_: None
    try:
        (folder / "kit").mkdir()
        (folder / "kit" / devkit.name).write_bytes(devkit.read_bytes())
        reference.parse_devkit_archive(folder / "kit")
        return reference.load_meta_file(folder / "kit")[1]
    finally:
        reference._verify_archive = unpatched


def test_of_several_networks_the_mean_probability_is_ranked(saved, tmp_path, monkeypatch, capsys):
    runs = (saved / "first.npz", saved / "second.npz")
    # A text file of the classes does as well; it brings no ground truth.
    classes, truth = tmp_path / "map_clsloc.txt", tmp_path / "truth.txt"
    classes.write_text("".join(f"{wnid} {number} a_name\n" for wnid, number in ID_OF.items()))
    truth.write_text("\n".join(map(str, TRUTH)))
    words = ("--devkit", classes, "--out", tmp_path / "both.txt", "--images", IMAGES)
    status, _, err = in_process("write", *runs, *words, m=monkeypatch, c=capsys)
    assert status == 0, err
    first, second = network(1, 1.0), network(2, 0.7)
    mean = (first.logits.softmax(1) + second.logits.softmax(1)) / 2
    order = torch.tensor([int(path[-13:-5]) for path in first.paths]).argsort()
    best = [[ID_OF[WNIDS[k]] for k in row] for row in mean[order].topk(5).indices.tolist()]
    lines = [[int(w) for w in s.split()] for s in (tmp_path / "both.txt").open()]
    assert lines == best

    scoring = ("score", tmp_path / "both.txt", "--devkit", classes)
    status, _, err = in_process(*scoring, m=monkeypatch, c=capsys)
    assert status == 2
    assert "--truth" in err
    status, _, err = in_process(*scoring, "--truth", truth, m=monkeypatch, c=capsys)
    assert status == 0, err


def test_scoring_by_hand_and_what_is_wrong_is_told_where(devkit, tmp_path, monkeypatch, capsys):
    other = TRUTH[0] % CLASSES + 1
    good = [f"{truth}" for truth in TRUTH]
    good[0] = f"{other} {other} {TRUTH[0]}"  # right with the third guess; a guess is wasted
    good[1] = f"{TRUTH[1] % CLASSES + 1}"  # one guess, and wrong
    status, out, _ = score_text(good, devkit, tmp_path, monkeypatch, capsys)
    assert status == 0
    assert f"{100 * 2 / IMAGES:7.3f} %  top-1" in out
    assert f"{100 * 1 / IMAGES:7.3f} %  top-5" in out
    assert "1 lines guess a class twice" in out

    bad = [*good[:-1]]
    bad[2], bad[3], bad[4], bad[5] = "1 2 3 4 5 6", "", "0 3", "2,3"
    status, _, err = score_text(bad, devkit, tmp_path, monkeypatch, capsys)
    assert status == 2
    assert f"{IMAGES - 1} lines, and there are {IMAGES} images" in err
    assert "line 3: 6 guesses, 5 are allowed" in err
    assert "line 4: no guess" in err
    assert f"line 5: 0 is no ILSVRC2012_ID, a whole number from 1 to {CLASSES}" in err
    assert "line 6: 2,3 is no ILSVRC2012_ID" in err


def score_text(lines, devkit, folder, monkeypatch, capsys):
    (folder / "sub.txt").write_text("\n".join(lines) + "\n")
    return in_process("score", folder / "sub.txt", "--devkit", devkit, m=monkeypatch, c=capsys)


def in_process(*words, m, c):
    m.syspath_prepend(str(SCRIPT.parent))
    import ilsvrc_submission

    m.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    return ilsvrc_submission.main(), *c.readouterr()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: {"paths": ("photo.jpg", *p.paths[1:])}, "1 of 60 images are not named as"),
        (lambda p: {"paths": (p.paths[1], *p.paths[1:])}, "is there twice"),
        (lambda p: {"paths": ()}, "do not say which images"),
        (lambda p: {"class_names": ("cat", *p.class_names[1:])}, "'cat'"),
        (lambda p: {"logits": p.logits.clone().fill_(torch.nan)}, "60 predictions of"),
    ],
)
def test_predictions_that_are_no_submission_are_refused(
    change, told, devkit, tmp_path, monkeypatch, capsys
):
    good = network(1, 1.0)
    dataclasses.replace(good, **change(good)).save(tmp_path / "p.npz")
    words = ("write", tmp_path / "p.npz", "--devkit", devkit, "--out", tmp_path / "s.txt")
    status, _, err = in_process(*words, "--images", IMAGES, m=monkeypatch, c=capsys)
    assert status == 2
    assert told in err
    assert not (tmp_path / "s.txt").exists()


def test_a_part_of_the_images_is_no_submission(devkit, saved, tmp_path, monkeypatch, capsys):
    words = ("write", saved / "first.npz", "--devkit", devkit, "--out", tmp_path / "s.txt")
    status, _, err = in_process(*words, m=monkeypatch, c=capsys)
    assert status == 2
    assert "each of the 50,000 val images" in err
    assert "predictions of 60; the first that is missing: 61" in err


@pytest.mark.parametrize(
    ("devkit_text", "truth_text", "told"),
    [
        (b"n02119789 1 kit_fox\n", b"\x93\xff\x00", "truth.txt is not a text file"),
        (b"\x93\xff\x00", b"1\n", "classes.txt is not a text file"),
        (b"\n", b"1\n", "classes.txt is empty"),
        (b"n02119789 \xc2\xb2 x\n", b"1\n", "classes.txt, line 1"),
        (b"n02119789 1 a\nn02100735 1 b\n", b"1\n", "n02119789 and n02100735 have one"),
        (b"n02119789 1 a\nn02119789 2 b\n", b"1\n", "n02119789 is there twice"),
    ],
)
def test_files_that_are_no_classes_or_answers_are_named(
    devkit_text, truth_text, told, tmp_path, monkeypatch, capsys
):
    classes, truth, guesses = (tmp_path / f"{n}.txt" for n in ("classes", "truth", "guesses"))
    classes.write_bytes(devkit_text)
    truth.write_bytes(truth_text)
    guesses.write_text("1\n")
    words = ("score", guesses, "--devkit", classes, "--truth", truth)
    status, _, err = in_process(*words, m=monkeypatch, c=capsys)
    assert status == 2
    assert told in err

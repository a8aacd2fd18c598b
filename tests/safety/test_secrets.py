"""Secrets stay out of everything a run leaves; names from elsewhere do no harm to any of it."""

import csv
import json
import os
import subprocess

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import fovea
from fovea import console
from fovea.errors import FoveaError, printable
from fovea.evaluation import as_cell
from fovea.experiment import build_data, compose
from fovea.run_folder import read_config
from fovea.safety.redaction import MASK, redact, redact_text
from process import arguments, environment

SECRETS = {
    "s3://AKIA:SECRETkey@bucket/photos": "s3://***@bucket/photos",
    "s3://key:SECRET/with+slash@bucket/photos": "s3://***@bucket/photos",
    "https://user:SECRET@host/x": "https://***@host/x",
    "https://ghp_SECRETSECRETSECRET@github.com/a/b.git": "https://***@github.com/a/b.git",
    "https://h/x?a=1&X-Amz-Signature=SECRET&b=2": "https://h/x?a=1&X-Amz-Signature=***&b=2",
    "https://h/x?X-Amz-Credential=SECRET%2Fus": "https://h/x?X-Amz-Credential=***",
    "https://a.blob.core.windows.net/c?sv=1&sig=SECRET%3D": "https://a.blob.core.windows.net/c?sv=1&sig=***",
    "https://h/x?access_token=SECRET#part": "https://h/x?access_token=***#part",
    "postgresql://me:SECRET@db:5432/study": "postgresql://***@db:5432/study",
    "log: hf_SECRETSECRETSECRETSECRETSECRETSECRET, and more": "log: ***, and more",
    "data/hf_imagenet_1k/train": "data/hf_imagenet_1k/train",
    "hf_resnet50_a1.pth": "hf_resnet50_a1.pth",
}
HARMLESS = [
    "https://host:8080/photos@2x/a.jpg", "s3://bucket/a=b?c", "/data/a@b/c", "me@example.org",
    "model.class_token=false", "https://h/x?size=3&page=keyless",
]  # fmt: skip


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_in_a_text(text):
    assert redact_text(text) == SECRETS[text]
    nested = redact({"a": [{"b": text}], "n": 1, "x": None})
    assert nested == {"a": [{"b": SECRETS[text]}], "n": 1, "x": None}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text):
    assert redact_text(text) == text


def test_secrets_by_the_name_of_their_key_and_of_the_environment(monkeypatch):
    record = {"api_key": "abc", "password": "x", "class_token": True, "seed": 0}
    assert redact(record) == {**record, "api_key": MASK, "password": MASK}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdef/SECRET")
    assert redact_text("it is abcdef/SECRET!") == "it is ***!"


def test_a_run_whose_address_had_a_secret_asks_for_it(tmp_path):
    cfg = compose(["data=shards", "data.root=s3://k:SECRET@b/x", f"paths.outputs={tmp_path}"])
    stored = OmegaConf.create(redact(OmegaConf.to_container(cfg, resolve=True)))
    with pytest.raises(FoveaError, match=r"data\.root=s3://\*\*\*@b/x.*Type it again.*data\.root="):
        build_data(stored)


def test_what_a_terminal_would_obey_is_shown():
    assert (
        printable("a\x1b[2J\r\x9b\u202eb\tc\n\udcff") == r"a\x1b[2J\r\x9b\u202eb" "\tc\n" r"\udcff"
    )


@pytest.mark.parametrize("text", ["=cmd()|' A", "@SUM(1)", "+x", "-x.jpg", "\tx"])
def test_a_cell_is_no_formula(text):
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1", "+2.5", "cat", "", "a=b", "./-x.jpg"])
def test_other_cells_stay(text):
    assert as_cell(text) == text


@pytest.mark.parametrize(
    "name", ["plain", "a b", "q'\"$(touch x)", "n\nl", "\udcff\x1b", "é😀", "back\\slash"]
)
def test_the_command_to_type_next_is_one_word_of_a_shell(name):
    word = console.given("ckpt", name)
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(f"ckpt={name}")


CLASSES = [
    "cl=ass,'q'", "<script>alert(1)<", "=cmd()", "$\\frac", "-lead", "new\nline", "\x1b[31mred",
    "L" * 240, "😀", "a#b%20c", "\udcff",
]  # fmt: skip
FILES = ["-x.jpg", "a b\n'\"=,#%.jpg", "\udcff.png", "😀\x1b[2J.jpg", "l" * 240 + ".jpg"]


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A run on images with odd names in odd folders, told secrets by its command line."""
    cwd = tmp_path_factory.mktemp("odd")
    root = cwd / "da ta='x',#%&é😀\n\"q\" [a] {b} \x1b[31m\udcff"
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for file in FILES:
            pixels = draw.integers(0, 255, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / file)
    words = arguments(
        "train", "data=folder", f"data.root={root}", "data.image_size=8", "data.batch_size=8",
        "data.num_workers=0", "model=timm", "model.name=test_resnet", "trainer.max_epochs=1",
        f"paths.outputs={cwd}/o ut=,'#%\n", "logger=wandb", "test=true",
        'tags=["https://me:SECRET1@host/x?X-Amz-Signature=SECRET2","${oc.env:HF_TOKEN}"]',
    )  # fmt: skip
    env = environment(WANDB_MODE="offline", WANDB_API_KEY="0123456789" * 4, HF_TOKEN="abcdSECRET3")
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (cwd / "o ut=,'#%\n").iterdir()
    return root, folder, done


@pytest.mark.slow
def test_no_secret_is_left_by_a_run(odd_run):
    _, folder, done = odd_run
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert b"SECRET" not in content, path
        assert b"0123456789" * 4 not in content, path
    assert b"SECRET" not in done.stdout + done.stderr
    assert read_config(folder).tags == ["https://***@host/x?X-Amz-Signature=***", MASK]


@pytest.mark.slow
def test_odd_names_work_everywhere(odd_run):
    root, folder, done = odd_run
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in (folder / "train.log").read_bytes()
    assert read_config(folder).data.root == str(root)
    with (folder / "report" / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"].lstrip("'") for row in rows} == {printable(n) for n in CLASSES}
    assert all(row["name"][0] not in "=-@+" for row in rows)
    json.loads((folder / "summary.json").read_text())
    model = fovea.load(folder)
    assert sorted(model.class_names) == sorted(CLASSES)
    for file in FILES:
        (found,) = model.predict([root / "😀" / file], top_k=1)
        assert found[0][0] in CLASSES

import importlib
import importlib.util
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fovea.errors import FoveaError
from process import environment

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def module(name):
    return importlib.import_module(name)


def make_photos(root, count=8, size=(100, 75)):
    """Write smooth pictures, each of its own colours, in two class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=95)


def job(way, part, folder, view="train", batch_size=4):
    return module("input_files").Job(way, part, view, 0, batch_size, 0.05, str(folder))


def failing(words, capsys, monkeypatch):
    """Return what the script prints as its error."""
    monkeypatch.setattr(sys, "argv", ["benchmark_input.py", *map(str, words)])
    assert module("benchmark_input").main() == 2
    return capsys.readouterr().err


# As a user runs it.


@pytest.mark.slow
def test_it_measures_files_shards_and_memory_and_says_what_is_missing(tmp_path):
    make_photos(tmp_path / "photos")
    make_photos(tmp_path / "cifar" / "train", 12, size=(32, 32))
    (tmp_path / "work").mkdir()
    options = {
        "root": tmp_path / "photos", "small": tmp_path / "cifar", "parts": "original,64,small",
        "peers": "ffcv", "views": "train", "workers": 1, "batch-size": 4, "files": 24,
        "repeats": 1, "seconds": 0.05, "out": tmp_path / "made" / "speed.csv",
        "folder": tmp_path / "work",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "benchmark_input.py")]
        + [f"--{name}={value}" for name, value in options.items()],
        env=environment(PYTHONPATH=str(ROOT / "src")), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "8 JPEGs of 8" in done.stdout
    assert "median 100 x 75 pixels" in done.stdout
    assert "12 images of 32 x 32 pixels" in done.stdout
    table = pd.read_csv(options["out"]).set_index(["part", "way"])
    expected = {
        ("original", "torchvision"): "float32", ("original", "fovea"): "uint8",
        ("original", "fovea-float"): "float32", ("original", "fovea-simplejpeg"): "uint8",
        ("64", "torchvision"): "float32", ("64", "fovea"): "uint8",
        ("small", "torchvision"): "float32", ("small", "fovea"): "float32",
    }  # fmt: skip
    always = table.drop("ffcv", level="way", errors="ignore")
    assert always.gives.to_dict() == expected
    if importlib.util.find_spec("ffcv") is None:
        assert "not installed: ffcv. To add it: apt-get install" in done.stdout
        assert "pip install ffcv" in done.stdout
    else:
        assert ("original", "ffcv") in table.index
    assert (table.images_per_second > 0).all()
    assert table.speedup["original", "torchvision"] == table.speedup["small", "torchvision"] == 1
    reference = table.images_per_second["original", "torchvision"]
    measured = table.images_per_second["64", "fovea"]
    assert table.speedup["64", "fovea"] == pytest.approx(measured / reference)
    if sys.platform == "linux":
        assert (table.cpu_ms > 0).all()
    with Image.open(options["out"].with_suffix(".png")) as plot:
        assert plot.size[0] > 500
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--synthetic=8", "--peers=timm,dally"], "--peers=dally is not one of"),
        (["--synthetic=8", "--peers=timm,dally"], "Did you mean 'dali'?"),
        (["--synthetic=8", "--views=evel"], "Did you mean 'eval'?"),
        (["--synthetic=8", "--parts=original,smal"], "Did you mean 'small'?"),
        (["--synthetic=8", "--workers=two"], "--workers=two is not one of a number"),
        (["--synthetic=8", "--parts=400,small"], "compared with the originals: --parts=original"),
        ([], "--root FOLDER, or --synthetic 400"),
        (["--root=nowhere"], "No JPEGs in nowhere/<class>/ (--root)"),
        (["--root=nowhere", "--folder=gone"], "gone"),
    ],
)
def test_wrong_arguments_say_what_to_type(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in failing(words, capsys, monkeypatch)


# What is compared.


def test_evaluation_is_the_same_images_in_fovea_and_torchvision(tmp_path):
    make_photos(tmp_path / "photos", 8, size=(400, 300))
    module("input_files").link_images(tmp_path / "photos", tmp_path / "original", 8)
    ways = module("input_ways")
    work = job("", "original", tmp_path, view="eval", batch_size=8)
    theirs = next(ways.Torchvision().batches(work)).flatten(1)
    ours = next(ways.FoveaFloat().batches(work)).flatten(1)
    assert len(ours) == 7  # one is cut off for validation
    apart = torch.cdist(ours, theirs) / ours.shape[1] ** 0.5  # root mean square, in deviations
    assert apart.min(1).values.max() < 0.02  # about one grey level
    assert len(set(apart.argmin(1).tolist())) == 7


@pytest.mark.parametrize("way", ["TorchvisionSmall", "FoveaSmall"])
def test_small_images_are_padded_with_black_and_normalised(way, tmp_path):
    colour = np.array([200, 100, 50], np.uint8)
    (tmp_path / "small").mkdir()
    np.save(tmp_path / "small" / "images.npy", np.tile(colour, (40, 32, 32, 1)))
    np.save(tmp_path / "small" / "labels.npy", np.arange(40) % 10)
    work = job("", "small", tmp_path, batch_size=32)
    images = next(getattr(module("input_small"), way)().batches(work))
    assert images.shape == (32, 3, 32, 32)
    mean, std = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])
    torch.testing.assert_close(images.amax((0, 2, 3)), (torch.tensor(colour) / 255 - mean) / std)
    torch.testing.assert_close(images.amin((0, 2, 3)), -mean / std)
    assert (images[:, :, 4:28, 4:28].amin((0, 2, 3)) > -mean / std).all()


def test_a_batch_of_another_size_is_refused(tmp_path):
    measure = module("input_measure")
    work = job("timm", "original", tmp_path)
    measure.check(torch.zeros(4, 3, 224, 224), work)
    measure.check(torch.zeros(4, 224, 224, 3), work)
    with pytest.raises(FoveaError, match=r"timm gave a batch of \(4, 3, 192, 192\)"):
        measure.check(torch.zeros(4, 3, 192, 192), work)


# The files.


def test_few_files_are_linked_under_several_names_and_cmyk_is_left_out(tmp_path):
    make_photos(tmp_path / "photos", 4)
    Image.new("CMYK", (40, 40)).save(tmp_path / "photos" / "a" / "z.jpg")
    lines = module("input_files").link_images(tmp_path / "photos", tmp_path / "original", 10)
    files = sorted((tmp_path / "original" / "train").rglob("*.jpg"))
    assert len(files) == 10
    assert len({path.stat().st_ino for path in files}) == 4
    assert {path.parent.name for path in files} == {"a", "b"}
    assert "1 left out: CMYK" in lines[0]


def test_many_files_are_chosen_evenly(tmp_path):
    make_photos(tmp_path / "photos", 12)
    module("input_files").link_images(tmp_path / "photos", tmp_path / "original", 4)
    files = list((tmp_path / "original" / "train").rglob("*.jpg"))
    assert len(files) == 4
    assert [sum(path.parent.name == name for path in files) for name in "ab"] == [2, 2]


def test_shrunk_images_keep_their_aspect_and_small_ones_their_size(tmp_path):
    make_photos(tmp_path / "big" / "train", 2, size=(100, 75))
    make_photos(tmp_path / "little" / "train", 2, size=(40, 30))
    for name in ("big", "little"):
        module("input_files").shrink_images(tmp_path / name, tmp_path / f"{name}64", 64)
    sizes = {
        name: {Image.open(path).size for path in (tmp_path / f"{name}64").rglob("*.jpg")}
        for name in ("big", "little")
    }
    assert sizes == {"big": {(64, 48)}, "little": {(40, 30)}}


# The numbers.


@pytest.mark.skipif(sys.platform != "linux", reason="workers cannot be asked elsewhere")
def test_processor_time_includes_that_of_running_and_ended_workers():
    cpu_seconds = module("input_measure").cpu_seconds
    context = multiprocessing.get_context("fork")  # as loaders start theirs on Linux
    ours, theirs = context.Pipe()
    worker = context.Process(target=burn, args=(theirs, 0.3))
    before, own = cpu_seconds(), time.process_time()
    worker.start()
    used = ours.recv()
    while_it_lives = cpu_seconds() - before
    ours.send("stop")
    worker.join()
    after, own = cpu_seconds() - before, time.process_time() - own
    for counted in (while_it_lives, after):  # in ticks of 10 ms
        assert used - 0.03 < counted < used + own + 0.1


def burn(pipe, seconds):
    began = time.process_time()
    while time.process_time() < began + seconds:
        pass
    pipe.send(time.process_time())
    pipe.recv()


def test_ratios_are_medians_of_the_ratios_within_a_repeat():
    speeds = {
        ("original", "torchvision"): [100, 200, 50],
        ("original", "fovea"): [250, 400, 200],
        ("400", "fovea"): [500, 1000, 450],
        ("400", "ffcv"): [400, 500, 300],
        ("small", "torchvision"): [1000, 1000, 1000],
        ("small", "fovea"): [21000, 19000, 20000],
    }
    rows = [
        {"part": part, "view": "train", "workers": 1, "way": way, "repeat": repeat,
         "images_per_second": speed, "cpu_ms": 2000 / speed, "gives": "uint8"}
        for (part, way), values in speeds.items() for repeat, speed in enumerate(values)
    ]  # fmt: skip
    table = module("input_report").summarise(pd.DataFrame(rows)).set_index(["part", "way"])
    assert table.images_per_second.to_dict() == {key: np.median(v) for key, v in speeds.items()}
    assert table.images_per_second_min["400", "ffcv"] == 300
    assert table.images_per_second_max["400", "ffcv"] == 500
    assert table.speedup["original", "fovea"] == 2.5  # of 2.5, 2, 4
    assert table.speedup["400", "fovea"] == 5  # to the originals: 5, 5, 9
    assert table.speedup["small", "fovea"] == 20
    assert table.behind["400", "ffcv"] == 1.5  # of 1.25, 2, 1.5
    assert table.behind["original", "torchvision"] == 2.5
    assert table.speedup_cpu.to_dict() == pytest.approx(table.speedup.to_dict())
    assert table.behind_cpu.to_dict() == pytest.approx(table.behind.to_dict())
    assert table.images_per_second_per_core["original", "fovea"] == 125
    assert table.repeats["400", "ffcv"] == 3


def test_a_peer_that_fails_is_left_out_and_noted_but_not_the_reference(tmp_path, monkeypatch):
    script = module("benchmark_input")

    def run(task, work):
        if work.way == broken:
            raise FoveaError("ImportError: no such library")
        return {"images_per_second": 1.0, "cpu_ms": 1.0, "gives": "uint8"}

    monkeypatch.setattr(script, "in_own_process", run)
    jobs = [job(way, "original", tmp_path) for way in ("torchvision", "dali", "fovea")]
    failed = {}
    broken = "dali"
    rows = script.measure_all(jobs, 2, failed)
    assert rows.way.tolist() == ["torchvision", "fovea"] * 2
    assert failed == {("dali", "original"): "ImportError: no such library"}
    broken = "torchvision"
    with pytest.raises(FoveaError, match="torchvision, original, train: ImportError"):
        script.measure_all(jobs, 1, {})

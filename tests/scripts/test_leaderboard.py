"""The leaderboard as a user sees it: on a terminal, and as a page in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from browser import opened
from made_runs import write_run
from process import ROOT, environment

EVIL = "<img src=x onerror=alert(1)>"


def leaderboard(*words, cwd, columns=None, check=True):
    extra = {"FOVEA_CACHE": ""} | ({} if columns is None else {"COLUMNS": str(columns)})
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "leaderboard.py"), *map(str, words)], cwd=cwd,
        env=environment(**extra), capture_output=True, text=True, check=check, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with outputs/ of 12 runs: a sweep, and what else may lie there."""
    place = tmp_path_factory.mktemp("leaderboard")
    outputs = place / "outputs"
    for job in range(8):
        lr, seed = 0.1 * (1 + job // 2), job % 2
        write_run(outputs / "sweep" / str(job), seed=seed, lr=lr, top1=0.1 * job)
    write_run(outputs / "failed", seed=7, state="failed", error=f"the loss is {EVIL}", top1=0.01)
    write_run(outputs / EVIL, seed=8, top1=0.95)
    write_run(outputs / "2026-11-24_12-00-00_abcdef", seed=9, top1=0.02, metrics={"val/top1": 0.1})
    broken = write_run(outputs / "broken")
    for name in ("metrics.csv", "summary.json", "config.yaml"):
        (broken / name).write_bytes(b"\xff")
    for name, top1 in (("evaluation", 0.5), ("second", 0.75)):
        folder = outputs / name
        folder.mkdir()
        (folder / "config.yaml").write_text("split: test\ndata: {_target_: fovea.data.Digits}\n")
        scores = {"state": "finished", "split": "test", "metrics": {"test/top1": top1}}
        (folder / "summary.json").write_text(json.dumps({**scores, "ckpt": f"of-{name}"}))
    return place


@pytest.fixture(scope="module")
def page_file(place):
    """Return the page of all runs in ``place``."""
    file = place / "outputs" / "leaderboard.html"
    assert f"page  {file.relative_to(place)}" in leaderboard("--html", cwd=place).stdout
    return file


def test_the_best_run_comes_first_and_lines_fit(place):
    done = leaderboard(cwd=place, columns=100)
    lines = done.stdout.splitlines()
    assert max(map(len, lines[: lines.index("")])) <= 100
    assert lines[0].split()[:3] == ["id", "val/loss", "state"]
    assert lines[1].startswith(EVIL)
    ids = [line.split()[0] for line in lines[2:10]]
    assert ids == [f"sweep/{job}" for job in (7, 6, 5, 4, 3, 2, 1)] + ["2026-11-24_12-00-00_abcdef"]
    assert "evaluation" not in done.stdout
    assert "12 runs by val/loss, lowest first" in lines
    assert any(line.startswith("failed  failed: the loss is") for line in lines)
    assert any(line.startswith("unknown  broken: summary.json:") for line in lines)
    narrow = leaderboard("--top", 3, cwd=place, columns=40).stdout.splitlines()
    assert max(map(len, narrow[:4])) <= 40
    assert narrow[0].split() == ["id", "val/loss", "state", "seed"]
    assert narrow[1].startswith("…ror=alert(1)>")
    assert "12 runs by val/loss, lowest first, 9 more: --top 0" in narrow


def test_what_is_shown_can_be_chosen(place):
    words = ("--sort", "optimizer.lr", "--columns", "id,optimizer.lr,seed", "--state", "finished")
    lines = leaderboard(*words, cwd=place).stdout.splitlines()
    assert lines[0].split() == ["id", "lr", "seed"]
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["sweep/6", "0.4", "0"],
        ["sweep/7", "0.4", "1"],
    ]
    lines = leaderboard("--kind", "eval", cwd=place).stdout.splitlines()
    assert lines[0].split()[:6] == ["id", "test/top1", "state", "split", "data", "ckpt"]
    assert lines[1].split()[:6] == ["second", "0.7500", "finished", "test", "Digits", "of-second"]
    assert lines[2].startswith("evaluation")
    assert "3 runs by test/top1, highest first" in lines, "the broken one may be of any kind"
    for words, advice in (
        (("--sort", "val/top"), "Did you mean 'val/top1'?"),
        (("--columns", "id,optimiser.lr"), "Did you mean 'optimizer.lr'?"),
        (("absent",), "no folder of runs"),
        (("--columns", "id, optimiser.lr"), "Did you mean 'optimizer.lr'?"),
        (("--columns", ","), "names nothing"),
        (("--state", "pruned"), "no such run"),
        (("--state", "finishd"), "Did you mean 'finished'?"),
        (("--top", -1), "0 shows all"),
    ):
        done = leaderboard(*words, cwd=place, check=False)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert advice in done.stderr
        assert "Traceback" not in done.stderr


def test_where_the_page_goes(place, tmp_path):
    copied = shutil.copytree(place / "outputs" / "sweep", tmp_path / "runs")
    (tmp_path / "pages").mkdir()
    leaderboard("--html", "runs", cwd=tmp_path)
    assert "Runs of runs" in (copied / "leaderboard.html").read_text()
    leaderboard("runs", "--html", "pages", cwd=tmp_path)
    assert (tmp_path / "pages" / "leaderboard.html").exists()
    done = leaderboard("runs", "--html", "/proc/x.html", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "can't be written to /proc/x.html" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_runs_are_called_can_neither_stop_it_nor_colour_a_terminal(tmp_path):
    evil = "val/\x1b]0;title\x07\x1b[31m\nx"
    monitor = {"monitor": {"metric": evil, "mode": "min"}, f"{evil}.y": 1}
    for number, seed in enumerate((10, "later", 9)):
        folder = write_run(tmp_path / "runs" / str(number), seed=seed, config=monitor)
        (folder / "metrics.csv").unlink()
    words = ("runs", "--sort", "seed", "--columns", "id,seed")
    lines = leaderboard(*words, "--mode", "min", cwd=tmp_path).stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [["2", "9"], ["0", "10"], ["1", "later"]]
    lines = leaderboard(*words, cwd=tmp_path).stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [["0", "10"], ["2", "9"], ["1", "later"]]
    for more in ((), ("--sort", "val/z"), ("--columns", f"{evil}.z"), ("--html",)):
        done = leaderboard("runs", *more, cwd=tmp_path, check=False, columns=30)
        assert "\x1b" not in done.stdout + done.stderr, more
        assert "\x07" not in done.stdout + done.stderr, more
    assert "3 runs by val/\\x1b]0;title\\x07\\x1b[31m x, lowest first" in done.stdout


def test_the_page_in_a_browser(page_file, tmp_path):
    with opened(page_file) as (page, problems):
        ids = "#runs tbody tr:not([hidden]) td:nth-child(2)"

        def shown(count=None):
            return page.locator(ids).all_inner_texts()[:count]

        assert page.locator("h1").inner_text() == "Runs of outputs"
        assert len(shown()) == 12
        assert shown(3) == [EVIL, "sweep/7", "sweep/6"], "the best first"
        assert page.locator("th[title='val/loss']").get_attribute("aria-sort") == "ascending"
        # The curves of the first five are drawn, where they can be seen, in colours of their own.
        lines = page.locator("#curves polyline")
        assert lines.count() == 5
        places = [lines.nth(at).bounding_box() for at in range(5)]
        frame = page.locator("#curves").bounding_box()
        for box in places:
            assert box["width"] > 500
            assert box["height"] > 50
            assert frame["y"] <= box["y"] <= frame["y"] + frame["height"]
        strokes = {lines.nth(at).get_attribute("stroke") for at in range(5)}
        assert len(strokes) == 5
        assert lines.first.locator("title").text_content() == EVIL
        # A click on a head sorts by it, another one turns it round.
        page.locator("th[title='seed']").click()
        heads = page.locator("#runs th").evaluate_all("heads => heads.map((head) => head.title)")
        seeds = page.locator(f"#runs td:nth-child({heads.index('seed') + 1})")
        assert seeds.all_inner_texts() == ["9", "8", "7", *["1"] * 4, *["0"] * 4, "–"]
        page.locator("th[title='seed']").click()
        assert seeds.all_inner_texts() == [*["0"] * 4, *["1"] * 4, "7", "8", "9", "–"]
        # The filter leaves rows that hold all words; the button takes their curves.
        page.locator("#filter").fill("SWEEP finished")
        assert sorted(shown()) == [f"sweep/{job}" for job in range(8)]
        assert page.locator("#shown").inner_text() == "8 of 12 runs"
        page.locator("#pick").click()
        assert lines.count() == 8
        assert page.locator("#legend span").count() == 8
        page.locator("#metric").select_option("train/loss")
        page.locator("#log").check()
        assert lines.count() == 8
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 10_000
        page.locator("#clear").click()
        assert lines.count() == 0
        assert "Choose runs" in page.locator("#curves").inner_html()
        page.locator("#filter").fill("failed")
        page.locator("#runs tbody tr:not([hidden]) input").check()
        assert lines.count() == 1
        state = page.locator("#runs tbody tr:not([hidden]) td.failed")
        assert state.get_attribute("title").endswith(f"the loss is {EVIL}")
        # A large number that never changes has ticks, and not without end.
        assert page.evaluate("ticks(1e16, 1e16, 6)") == [1e16]
        assert page.evaluate("ticks(5, 5, 6)") == [5]
        assert page.evaluate("ticks(0, 0, 6)") == [0]
        assert 2 <= len(page.evaluate("ticks(1e16, 1e16 + 4, 6)")) <= 50
        assert problems == []
    if keep := os.environ.get("FOVEA_KEEP_PICTURES"):
        os.replace(tmp_path / "page.png", os.path.join(keep, "leaderboard.png"))


def test_the_page_of_odd_folders_holds_all_of_them(page_file):
    text = page_file.read_text()
    links = re.findall(r'<a href="([^"]+)"', text)
    assert "sweep/7" in links
    assert EVIL not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")

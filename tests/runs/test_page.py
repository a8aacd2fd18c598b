"""The curves that a page of runs holds."""

import json
import tracemalloc

from fovea.runs import page

HEAD = "epoch,step,val/loss,train/loss\n"


def write_curves(folder, rows):
    folder.mkdir()
    (folder / "metrics.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return str(folder)


def test_a_curve_is_thinned_to_what_a_screen_shows_and_keeps_its_ends(tmp_path, monkeypatch):
    long = write_curves(
        tmp_path / "a", [f"0,{at},{at},{'' if at % 2 else at}" for at in range(1001)]
    )
    short = write_curves(tmp_path / "b", ["0,9,1.0,", "1,19,0.123456,2.0"])
    first, second = page.read_curves([long, short])
    lines = {name: (first["steps"][at], kept) for name, (at, kept) in first["metrics"].items()}
    for steps, kept in lines.values():
        assert steps == kept
        assert (steps[0], steps[-1]) == (0, 1000)
        assert 200 < len(steps) <= 301
    assert second["metrics"] == {"val/loss": [0, [1.0, 0.12346]]}, "a constant is no curve"
    monkeypatch.setattr(page, "MOST_POINTS", 90)
    few, _ = page.read_curves([long, short])
    for at, kept in few["metrics"].values():
        assert few["steps"][at] == kept
        assert (kept[0], kept[-1]) == (0, 1000)
        assert 25 <= len(kept) <= 31


def test_the_text_of_long_runs_is_not_kept(tmp_path):
    folders = [
        write_curves(tmp_path / str(run), [f"0,{at},{at}.125,{at}.25" for at in range(5000)])
        for run in range(12)
    ]
    tracemalloc.start()
    page.read_curves(folders[:1])
    one = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    page.read_curves(folders)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * one


def test_numbers_that_json_or_a_browser_lack_are_left_out(tmp_path):
    rows = ["0,1,1.7976931e308,1", "0,2,nan,2", "0,3,0.5,3", "0,4,0.25,4"]
    [curves] = page.read_curves([write_curves(tmp_path / "a", rows)])
    assert json.loads(page.as_json(curves)) == {
        "steps": [[3, 4], [1, 2, 3, 4]],
        "metrics": {"val/loss": [0, [0.5, 0.25]], "train/loss": [1, [1.0, 2.0, 3.0, 4.0]]},
    }
    far = [f"0,1{'0' * digits},{digits},1" for digits in (1, 400)]
    assert page.read_curves([write_curves(tmp_path / "b", far)])[0]["metrics"] == {}

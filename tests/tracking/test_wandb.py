import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.utilities import rank_zero_only

from fovea.tracking import wandb_logger, wandb_mode
from fovea.tracking.wandb_access import answers

KEY = "0123456789" * 4
SRC = Path(__file__).parents[2] / "src"


class Server:
    """An HTTP server on this machine that answers everything with one status, or never."""

    def __init__(self, status: int | None) -> None:
        self.release = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(handler) -> None:  # noqa: N805
                if status is None:
                    self.release.wait(20)
                    return
                handler.send_response(status)
                handler.send_header("Content-Length", "2")
                handler.end_headers()
                handler.wfile.write(b"{}")

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *args) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server():
    running: list[Server] = []

    def start(status: int | None) -> Server:
        running.append(Server(status))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No key, no settings, and a proxy must not come between the test and its server."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_any_answer_counts_as_reachable(server, status) -> None:
    assert answers(server(status).url, 5)


def test_silence_and_refusal_are_noticed_in_time(server) -> None:
    start = time.monotonic()
    assert not answers(server(None).url, 0.5)
    assert time.monotonic() - start < 2
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        start = time.monotonic()
        assert not answers(f"http://127.0.0.1:{unused.getsockname()[1]}", 30)
        assert time.monotonic() - start < 5
    assert not answers("http://name.invalid", 5)
    assert not answers("not a url", 5)


def test_without_a_key_the_run_is_offline_and_nobody_is_asked(monkeypatch) -> None:
    monkeypatch.setattr("fovea.tracking.wandb_access.answers", None)  # the network is not tried
    assert wandb_mode() == "offline"


@pytest.mark.parametrize(
    ("value", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")]
)
def test_wandb_mode_is_followed(monkeypatch, value, mode) -> None:
    monkeypatch.setenv("WANDB_MODE", value)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_mode() == mode


def test_wandb_mode_online_without_a_key_warns(monkeypatch, caplog) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_mode() == "offline"
    assert "wandb login" in caplog.text


def test_a_key_and_a_server_are_online(monkeypatch, server) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(200).url)
    assert wandb_mode() == "online"


def test_a_key_without_a_server_is_offline_with_one_warning(monkeypatch, server, caplog) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(None).url)
    start = time.monotonic()
    assert wandb_mode(timeout_s=0.5) == "offline"
    assert time.monotonic() - start < 3
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.name for record in warnings] == ["fovea.tracking.wandb_access"]


@pytest.mark.parametrize("public", [False, True])
def test_the_key_in_netrc_counts_for_its_host_only(monkeypatch, server, tmp_path, public) -> None:
    url = server(200).url
    host = "api.wandb.ai" if public else url.removeprefix("http://")
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    monkeypatch.setattr("fovea.tracking.wandb_access.answers", lambda url, timeout: True)
    assert wandb_mode() == ("online" if public else "offline")
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", url)
    assert wandb_mode() == ("offline" if public else "online")


def test_a_damaged_netrc_is_no_key(tmp_path) -> None:
    (tmp_path / "netrc").write_bytes(b"machine \xff\n nonsense")
    assert wandb_mode() == "offline"


def run_folders(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("*run-*"))


def logged_bytes(folder: Path) -> bytes:
    wandb.teardown()  # waits until its service has written everything
    (run,) = run_folders(folder)
    (log,) = run.glob("run-*.wandb")
    return log.read_bytes()


def test_offline_run_holds_config_curves_figures_and_summary(tmp_path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "curves.png")
    logger = wandb_logger(
        tmp_path / "run",
        project="a-project",
        name="a-name",
        group="a-group",
        tags=["a-tag"],
        run_id="2026-01-31/a b",
        config={"optimizer": {"lr": 0.12345}},
    )
    assert not (tmp_path / "run").exists()
    logger.log_hyperparams({"environment": {"commit": "c0ffee"}})
    assert not (tmp_path / "run").exists()
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=3)
    logger.log_image("figures/curves", [str(tmp_path / "curves.png")])
    assert logger.mode == "offline"
    assert logger.url is None
    logger.finish({"test/top1": 0.987654})
    content = logged_bytes(tmp_path / "run")
    for word in (
        b"a-project", b"a-name", b"a-group", b"a-tag", b"2026-01-31-a-b", b"0.12345", b"c0ffee",
        b"train/loss", b"trainer/global_step", b"figures/curves", b"test/top1", b"0.987654",
    ):  # fmt: skip
        assert word in content, word
    (run,) = run_folders(tmp_path / "run")
    assert len(list(run.rglob("*.png"))) == 1
    assert logger.sync_command == f"wandb sync {run}"


def test_two_runs_in_one_process_stay_apart(tmp_path) -> None:
    for name in ("one", "two"):
        logger = wandb_logger(tmp_path / name, run_id=name)
        logger.log_metrics({f"metric-{name}": 1.0}, step=0)
    logger.finish({})
    assert b"metric-two" not in logged_bytes(tmp_path / "one")
    assert b"metric-two" in logged_bytes(tmp_path / "two")


def test_other_ranks_start_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = wandb_logger(tmp_path / "run")
    logger.experiment.log({"a": 1})
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finish({})
    assert not (tmp_path / "run").exists()


def test_disabled_writes_nothing(tmp_path) -> None:
    logger = wandb_logger(tmp_path / "run", mode="disabled")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finish({"a": 1.0})
    assert not run_folders(tmp_path / "run")
    assert logger.sync_command is None


def test_a_refused_key_ends_in_an_offline_run(tmp_path, monkeypatch, server, caplog) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(401).url)
    logger = wandb_logger(tmp_path / "run", run_id="same-id")
    logger.log_metrics({"a-metric": 1.0}, step=0)
    logger.finish({})
    assert logger.mode == "offline"
    assert "could not start online" in caplog.text
    wandb.teardown()
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*-same-id")
    assert b"a-metric" in next(offline.glob("*.wandb")).read_bytes()


@pytest.mark.parametrize("variable", ["WANDB_BASE_URL", "WANDB_MODE"])
def test_a_variable_wandb_cannot_read_stops_nothing(
    tmp_path, monkeypatch, caplog, variable
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    logger = wandb_logger(tmp_path / "run")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_image("figure", ["absent.png"])
    logger.finish({})
    assert logger.mode == "disabled"
    assert "could not start" in caplog.text


def test_a_second_error_turns_wandb_off(tmp_path, monkeypatch, caplog) -> None:
    logger = wandb_logger(tmp_path / "run")

    def fail(*args, **kwargs):
        raise BrokenPipeError("the service has gone\nand more")

    monkeypatch.setattr(wandb.Run, "log", fail)
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step=step)
    logger.finish({})
    warnings = [record.message for record in caplog.records if "fovea" in record.name]
    assert len(warnings) == 2
    assert warnings[0].startswith("W&B: the service has gone. The run goes on offline; to upload")
    assert warnings[1] == "W&B: failed and is off from here on: the service has gone"


SCRIPT = """
import sys, time
from fovea.tracking import wandb_logger
start = time.monotonic()
logger = wandb_logger(sys.argv[1], run_id="a-run")
logger.log_metrics({"a-metric": 1.0}, step=0)
logger.finish({"a-summary": 1.0})
assert logger.mode == "offline", logger.mode
assert time.monotonic() - start < 10
"""


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_no_terminal_and_no_home(tmp_path, closed) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "HOME": "/dev/null/none"}
    shell = ["/bin/sh", "-c", f'exec "$0" -c "$1" "$2" {closed}']
    run = subprocess.run(
        [*shell, sys.executable, SCRIPT, tmp_path / "run"],
        env=environment | {"MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert b"a-summary" in logged_bytes(tmp_path / "run")
    assert "INFO" not in run.stderr
    assert "Traceback" not in run.stderr

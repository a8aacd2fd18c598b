"""What a command says: the log, the summary at the start, the words at the end."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from fovea import run_folder, run_lock
from fovea.errors import printable
from fovea.machine import places
from fovea.machine.devices import is_main_process
from fovea.machine.no_room import reason
from fovea.safety.redaction import redact_text

if TYPE_CHECKING:
    from fovea.data import ImageDataModule
    from fovea.experiment import Experiment

log = logging.getLogger("fovea")

# Advice of libraries that does not apply here; everything else they warn of reaches the log.
_NOT_FOR_US = (
    r".*does not have many workers.*",  # chosen from the cores there are
    r".*Checkpoint directory .* exists and is not empty.*",  # one folder a run; resume continues it
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*You're resuming from a checkpoint that ended before the epoch ended.*",  # data does too
    r".*torch\.distributed.*barrier.*device.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


class SafeFormatter(logging.Formatter):
    """Leaves secrets out, and shows control characters instead of sending them to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for ``record``."""
        return printable(redact_text(super().format(record)))


class Screen(logging.StreamHandler[TextIO]):
    """Standard output, whose reader may leave: ``| head -1`` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line, above any open progress bar."""
        with tqdm.external_write_mode(self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Print nothing from here on if nobody reads; else do as usual."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            places.mute_broken_pipe()
        else:
            super().handleError(record)


class LogFile(logging.FileHandler):
    """The log of a run, which a full disk may cut: that is said once on the terminal."""

    _said = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; the file is opened here, at the first one."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say what is wrong, and go on without the file until it can be written again."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._said:
            self._said = True
            print(f"{self.baseFilename} can't be written: {reason(error, self.baseFilename)}")


def start_logging(folder: Path, command: str) -> None:
    """Send messages to the terminal, and messages and warnings to ``<folder>/<command>.log``.

    Only rank 0 writes either; other ranks keep errors alone.
    """
    main = is_main_process()
    log.setLevel(logging.INFO if main else logging.ERROR)
    log.propagate = False
    screen = Screen(sys.stdout)
    screen.setFormatter(SafeFormatter("%(message)s"))
    log.handlers = [screen]
    if main:
        file = LogFile(folder / f"{command}.log", delay=True, encoding="utf-8")
        file.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").handlers = [file]
        logging.getLogger("py.warnings").propagate = False
    for message in _NOT_FOR_US:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric", "wandb"):
        logging.getLogger(name).setLevel(logging.WARNING)


def is_terminal() -> bool:
    """Return whether a person watches: no progress bars into files."""
    return sys.stdout.isatty()


def remove_if_empty(folder: Path, command: str) -> None:
    """Remove a run folder that nothing but a log came to: the run never began."""
    if folder.is_dir() and {p.name for p in folder.iterdir()} <= {f"{command}.log", run_lock.NAME}:
        shutil.rmtree(folder, ignore_errors=True)


def command(name: str, arguments: str) -> str:
    """Return the command line that runs ``name`` as this process was run: ready to paste."""
    if not sys.argv[0].endswith(".py"):
        return f"fovea-{name} {arguments}"
    found = shutil.which("python")
    # `make` runs the environment's Python without activating it: then say which one.
    same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    python = "python" if same else shorten(Path(sys.executable))
    return f"{python} {shorten(Path(sys.argv[0]).absolute().with_name(f'{name}.py'))} {arguments}"


def given(key: str, path: Path | str) -> str:
    """Return ``key=path`` as one word for a shell (bash, zsh), whatever is in the path."""
    word = f"{key}={path}"
    if word.isprintable():
        return shlex.quote(word)
    codes = os.fsencode(word)
    plain = (chr(c) if 32 <= c < 127 and c not in b"'\\" else f"\\x{c:02x}" for c in codes)
    return f"$'{''.join(plain)}'"


def shorten(path: Path | str) -> str:
    """Return ``path`` relative to the working directory if it lies below it."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith("..") else relative


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print label and text in two columns; an empty label continues the one above."""
    width = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        for i, line in enumerate(text.splitlines() or [""]):
            log.info("  %-*s  %s", width, label if i == 0 else "", line)


def print_start(folder: Path, experiment: Experiment, resumed_from: Path | None) -> None:
    """Print the summary of a run that is about to begin."""
    trainer, data = experiment.trainer, experiment.data
    world, accumulate = trainer.world_size, trainer.accumulate_grad_batches
    per_device = data.per_device_batch(world, accumulate)
    kind = type(trainer.accelerator).__name__.removesuffix("Accelerator")
    batch = f"{data.batch_size} = {world} x {kind} x {per_device}"
    batch += f" x {accumulate} accumulated" if accumulate > 1 else ""
    length = f"{trainer.max_epochs} epochs of {experiment.steps_per_epoch} steps"
    whole = (trainer.max_epochs or 0) * experiment.steps_per_epoch
    length += f", to step {trainer.max_steps}" if 0 <= trainer.max_steps < whole else ""
    length += f", {trainer.precision} precision"
    rows = [
        *experiment.rows,
        ("batch", batch),
        ("length", length),
        ("folder", shorten(folder)),
    ]
    if resumed_from is not None:
        rows.append(("resume", f"from {shorten(resumed_from)}"))
    log.info("\nfovea: %s", folder.name)
    print_rows(rows)
    log.info("")


def _reached(metrics: dict[str, float], report: Path) -> str:
    """Return the scores in words: of test where it was touched, with the report's intervals."""
    split = "test" if any(name.startswith("test/") for name in metrics) else "val"
    try:
        intervals = json.loads(report.read_text(encoding="utf-8"))["intervals"]
    except (OSError, ValueError, KeyError):  # the disk was full
        intervals = {}
    words = []
    for name, value in metrics.items():
        if name.startswith(f"{split}/") and not name.endswith("/loss"):
            low, high = intervals.get(name.partition("/")[2], (None, None))
            known = low is not None and high is not None
            words.append(f"{name} {value:.4f}" + (f" [{low:.4f}, {high:.4f}]" if known else ""))
    return ", ".join(words) + (" (95 % intervals)" if intervals else "")


def print_end(
    folder: Path,
    data: ImageDataModule,
    monitor: str,
    objective: float | None,
    metrics: dict[str, float],
    best: str,
    bad: list[tuple[str, str]],
) -> None:
    """Print what was reached, where the files are, and which command to try next."""
    reached = _reached(metrics, folder / "report" / "metrics.json")
    if objective is not None:
        log.info("\nbest %s %.4f; the best checkpoint has %s", monitor, objective, reached)
    else:
        log.info("\n%s was never measured; the last weights have %s", monitor, reached)
    read, by_pillow = data.decoded()
    if by_pillow:
        log.info("%d of %d reads of images were left to Pillow, being no plain JPEGs: slower",
                 by_pillow, read)  # fmt: skip
    if bad:
        log.warning("%d unreadable images were left out; listed in summary.json, first: %s: %s",
                    len(bad), *bad[0])  # fmt: skip
    last = folder / run_folder.CHECKPOINTS / "last.ckpt"
    saved = Path(best) if best else last
    files = [("checkpoint", saved)] if saved.is_file() else []
    files += [("curves", folder / "metrics.csv")]
    files += [("profile", path) for path in sorted(folder.glob("*profile*.txt"))]
    report = folder / "report"
    files += [("report", page) for page in [report / "report.html"] if page.is_file()]
    rows = [(label, shorten(path)) for label, path in files]
    if pictures := sorted(path.stem for path in report.glob("*.png")):
        names = textwrap.fill(", ".join(pictures), 78)
        rows.append(("pictures", f"{shorten(report)}/*.png\n{names}"))
    print_rows(rows)
    if saved.is_file():
        usual = saved.parent == folder / run_folder.CHECKPOINTS
        reference = shorten(folder if usual else saved)
        split = "test" if "test" in data.splits else "val"
        log.info("\nTry next:")
        ckpt = given("ckpt", reference)
        log.info("  %s", command("eval", f"{ckpt} split={split}"))
        log.info("  %s", command("predict", f"{ckpt} <image files>"))

"""Look whether this machine is ready to train, and say what to do where it is not.

    python scripts/doctor.py [--data FOLDER] [--outputs FOLDER] [--quick] [--json]

Prints a line a check: ok, note or problem, and what to do. The exit status is 1 if there is a
problem. Each check runs in a process of its own that is ended when it takes too long, so that
neither a broken library nor a dead network drive stops the others. Takes about 20 seconds; with
--quick, which leaves out imports, speeds, ranks and the network, about five.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from doctor_data import check_data, check_decoding
from doctor_finding import Check, Finding, Options, first_line, problem
from doctor_machine import (
    check_disk,
    check_memory,
    check_places,
    check_processors,
    check_shared_memory,
)
from doctor_network import check_hubs, check_wandb
from doctor_software import (
    check_configuration,
    check_git,
    check_imports,
    check_packages,
    check_python,
    check_tensorboard,
)
from doctor_torch import check_gpus, check_ranks, check_torch

CHECKS = {
    "python": Check(check_python),
    "packages": Check(check_packages),
    "torch": Check(check_torch, timeout_s=60),
    "imports": Check(check_imports, timeout_s=90, in_quick=False),
    "gpus": Check(check_gpus, timeout_s=60),
    "processors": Check(check_processors),
    "memory": Check(check_memory),
    "disk": Check(check_disk, alone=True),
    "shared memory": Check(check_shared_memory),
    "places": Check(check_places),
    "configuration": Check(check_configuration, timeout_s=30),
    "data": Check(check_data, timeout_s=120),
    "decoding": Check(check_decoding, timeout_s=60, in_quick=False, alone=True),
    "ranks": Check(check_ranks, timeout_s=90, in_quick=False),
    "W&B": Check(check_wandb, timeout_s=60, in_quick=False),
    "TensorBoard": Check(check_tensorboard),
    "git": Check(check_git),
    "network": Check(check_hubs, timeout_s=60, in_quick=False),
}
AT_ONCE = 2
"""Checks that run at the same time, those that measure something left out."""


def main() -> int:
    """Return the exit status: 1 if there is a problem, 0 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, help="folder of images, or a table, to look at as well"
    )
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), help="where runs will write"
    )
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    told = parser.parse_args()
    options = Options(told.data, told.outputs, told.quick)
    if told.check:
        print("\n" + json.dumps(asdict(run_here(told.check, options))))
        return 0
    findings = {}
    for name, finding in examine(options):
        findings[name] = finding
        if not told.json:
            show(name, finding)
    count = sum(finding.level == "problem" for finding in findings.values())
    if told.json:
        checks = [{"check": name, **asdict(finding)} for name, finding in findings.items()]
        print(json.dumps({"problems": count, "checks": checks}, indent=2))
    else:
        print(f"\n{count or 'no'} problem{'' if count == 1 else 's'}")
    return int(count > 0)


def run_here(name: str, options: Options) -> Finding:
    """Return what check ``name`` finds, in this process; whatever it raises is a finding, too."""
    try:
        return CHECKS[name].run(options)
    except ModuleNotFoundError as error:
        return problem(f"not checked: {error.name} is not installed", "see the line on packages")
    except Exception as error:
        return problem(f"could not be checked: {first_line(error)}", "see the lines above")


def examine(options: Options) -> Iterator[tuple[str, Finding]]:
    """Yield each check's name and finding in the order of `CHECKS`, as soon as they are known."""
    chosen = [name for name, check in CHECKS.items() if check.in_quick or not options.quick]
    # What measures runs first, while nothing else does.
    measured = {n: run_apart(n, options) for n in chosen if CHECKS[n].alone}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            name: pool.submit(run_apart, name, options) for name in chosen if name not in measured
        }
        for name in chosen:
            yield name, measured[name] if name in measured else futures[name].result()


def run_apart(name: str, options: Options) -> Finding:
    """Return what check ``name`` finds in a process of its own, ended when its time is over."""
    words = [sys.executable, __file__, "--check", name, "--outputs", str(options.outputs)]
    words += ["--data", str(options.data)] if options.data else []
    words += ["--quick"] if options.quick else []
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    start = time.monotonic()
    try:
        out, errors = process.communicate(timeout=CHECKS[name].timeout_s)
    except subprocess.TimeoutExpired:
        return problem(
            f"no answer after {time.monotonic() - start:.0f} s",
            "a network drive or a device may hang; look at: dmesg, df, nvidia-smi",
        )
    finally:  # also what the check started, and also after Ctrl-C
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    try:
        return Finding(**json.loads(out.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        return problem(f"ended with status {process.returncode}: {last}", "see the lines above")


def show(name: str, finding: Finding) -> None:
    """Print one check, with what to do on a line of its own."""
    margin = " " * 24
    text = textwrap.fill(
        finding.text, 100, initial_indent=f"{finding.level:<9}{name:<15}", subsequent_indent=margin
    )
    print(text, flush=True)
    if finding.todo:
        print(f"{margin}-> {finding.todo}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # | head
        os._exit(1)

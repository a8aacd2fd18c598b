"""What torch finds: its build, the GPUs and their driver, and processes that talk to each other."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

from doctor_finding import Finding, Options, first_line, note, ok, problem
from doctor_software import INSTALL

CUDA_BUILD = f"{sys.executable} -m pip install --force-reinstall torch torchvision"
"""PyPI's wheels for Linux are built for CUDA."""

RANKS_S = 30
"""Seconds that two processes may take to find each other."""


def check_torch(_options: Options) -> Finding:
    """Compute something, and say what torch was built for."""
    try:
        import torch
    except Exception as error:  # a library that does not load is an OSError, a broken one anything
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        text = "torch is not installed" if missing else f"torch: {first_line(error)}"
        return problem(text, INSTALL if missing else f"{INSTALL} --force-reinstall")
    ones = torch.ones(64, 64)
    if (ones @ ones).sum().item() != 64**3:
        return problem(f"torch {torch.__version__} computes wrong results", CUDA_BUILD)
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    if torch.version.hip:
        built = f"ROCm {torch.version.hip}"
    return ok(f"{torch.__version__}, built for {built}; {torch.get_num_threads()} threads")


def check_gpus(_options: Options) -> Finding:
    """Compare what the driver sees with what torch can use."""
    seen = _driver()
    try:
        import torch
    except Exception as error:
        text = f"not checked, since torch can't be imported; the driver sees {len(seen)}"
        return note(f"{text}: {first_line(error)}", "see the line on torch")
    if not torch.cuda.is_available():
        return _without_cuda(seen, torch)
    words, wrong = [], []
    for number in range(torch.cuda.device_count()):
        found, bad = _try_gpu(torch, number)
        words.append(found)
        wrong += [bad] if bad else []
    text = f"{len(words)}: {', '.join(words)}" + (f"; driver {seen[0][1]}" if seen else "")
    if wrong:
        return problem(f"{text}; {'; '.join(wrong)}", CUDA_BUILD)
    if len(seen) > len(words):
        return note(f"{text}; the driver sees {len(seen)}", "look at CUDA_VISIBLE_DEVICES")
    return ok(text)


def _driver() -> list[list[str]]:
    """Return (name, driver version, memory in MiB) of each GPU that nvidia-smi lists."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = "--query-gpu=name,driver_version,memory.total"
    try:
        listed = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # installed, and no driver to talk to
        return []
    return [line.split(", ") for line in listed.stdout.strip().splitlines()]


def _without_cuda(seen: list[list[str]], torch: Any) -> Finding:
    if torch.backends.mps.is_available():
        return ok("Apple's, through MPS")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return note(f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}", "unset CUDA_VISIBLE_DEVICES")
    if not seen:
        return note("none: training runs on the CPU", "data=digits or a small network is fine")
    names = f"{len(seen)} x {seen[0][0]}, driver {seen[0][1]}, and torch can't use them: "
    if torch.version.cuda is None:
        return problem(f"{names}it was built for the CPU", CUDA_BUILD)
    try:
        torch.cuda.init()
        why = "no reason given"
    except Exception as error:
        why = first_line(error)
    return problem(
        f"{names}{why}",
        f"update the driver to one for CUDA {torch.version.cuda}, or install a torch for yours",
    )


def _try_gpu(torch: Any, number: int) -> tuple[str, str]:
    """Return what GPU ``number`` is, and what is wrong with it, or ""."""
    device = torch.cuda.get_device_properties(number)
    name = f"{device.name} ({device.total_memory / 1e9:.0f} GB)"
    try:
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        right = (ones @ ones).sum().item() == 64**3
        free, total = torch.cuda.mem_get_info(number)
    except Exception as error:  # an architecture this torch has no code for, a GPU that fell out
        return name, f"GPU {number}: {first_line(error)}"
    if free < total / 2:
        name += f", {free / 1e9:.0f} GB of it free"
    return name, "" if right else f"GPU {number} computes wrong results"


def check_ranks(_options: Options) -> Finding:
    """Let two processes add a number by gloo, as ``trainer=ddp_cpu trainer.devices=2`` does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    ranks = [context.Process(target=_rank, args=(r, port, answers), daemon=True) for r in (0, 1)]
    for rank in ranks:
        rank.start()
    said = [answers.get(timeout=RANKS_S + 5) for _ in ranks]
    wrong = [answer for answer in said if answer != "3"]
    if wrong:
        todo = "export GLOO_SOCKET_IFNAME=lo; a firewall must let a machine talk to itself"
        return problem(f"two processes do not find each other: {wrong[0]}", todo)
    return ok("two processes found each other (gloo) and added up their numbers")


def _rank(rank: int, port: int, answers: Any) -> None:
    try:
        import torch
        import torch.distributed as distributed

        limit = timedelta(seconds=RANKS_S)
        where = f"tcp://127.0.0.1:{port}"
        distributed.init_process_group(
            "gloo", init_method=where, rank=rank, world_size=2, timeout=limit
        )
        number = torch.tensor([rank + 1])
        distributed.all_reduce(number)
        answers.put(str(number.item()))
    except Exception as error:
        answers.put(first_line(error))

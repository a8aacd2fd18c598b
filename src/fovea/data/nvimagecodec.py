"""Parts of JPEGs, decoded by nvImageCodec: on the CPU, without CUDA, or on a GPU.

Source: https://docs.nvidia.com/cuda/nvimagecodec (0.9). It has wheels for Linux and Windows.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

CPU_ONLY = -99999
"""``device_id`` of a decoder without a GPU: ``NVIMGCODEC_DEVICE_CPU_ONLY`` in its header."""

_EXTENSIONS = "NVIMGCODEC_EXTENSIONS_PATH"
_VERBOSITY = "PYNVIMGCODEC_VERBOSITY"


@cache
def _folder() -> Path | None:
    """Return where the package is installed, or None."""
    try:
        found = importlib.util.find_spec("nvidia.nvimgcodec")
    except ModuleNotFoundError:  # not even the namespace
        return None
    return None if found is None or found.origin is None else Path(found.origin).parent


def available() -> bool:
    """Return whether the package is installed."""
    return _folder() is not None


@cache
def _library(gpu: bool = False) -> Any:
    """Return the module, with the extensions loaded that are used and no others.

    By default it loads every extension at import, and those for the GPU print errors where their
    libraries are missing. A folder of the wanted ones is how it is told otherwise. The first call
    of a process decides.
    """
    folder = _folder()
    assert folder is not None
    os.environ.setdefault(_VERBOSITY, "0")  # it prints what it refuses, and Pillow says why
    if _EXTENSIONS in os.environ:
        from nvidia import nvimgcodec

        return nvimgcodec
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as chosen:
        for kind in ("jpeg_turbo", "nvjpeg_ext") if gpu else ("jpeg_turbo",):
            for file in (folder / "extensions").glob(f"*{kind}*"):
                try:
                    Path(chosen, file.name).symlink_to(file)
                except OSError:  # Windows, without the right to
                    shutil.copy(file, chosen)
        os.environ[_EXTENSIONS] = chosen
        try:
            from nvidia import nvimgcodec
        finally:
            del os.environ[_EXTENSIONS]
    return nvimgcodec


@cache
def _decoder(_process: int, device: torch.device) -> Any:
    """Return this process's decoder: one that was made before a fork must not be used after it."""
    if device.type == "cpu":
        library = _library()
        backend = library.Backend(library.BackendKind.CPU_ONLY)
        return library.Decoder(device_id=CPU_ONLY, max_num_cpu_threads=1, backends=[backend])
    library = _library(gpu=True)
    kinds = library.BackendKind
    chosen = (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
    number = torch.cuda.current_device() if device.index is None else device.index
    return library.Decoder(device_id=number, backends=[library.Backend(kind) for kind in chosen])


@cache
def _settings(channels: int, gpu: bool = False) -> Any:
    library = _library(gpu)
    colour = library.ColorSpec.SRGB if channels == 3 else library.ColorSpec.GRAY
    return library.DecodeParams(apply_exif_orientation=False, color_spec=colour)


def decode_part(data: bytes, top: int, left: int, height: int, width: int, channels: int) -> Tensor:
    """Return a part of the JPEG ``data``, (C, height, width) uint8, channels last in memory.

    The same to the bit as the part of the whole image. As stored: EXIF does not turn it.

    Raises:
        ValueError: the decoder refuses the file.
    """
    stream = _stream(_library(), data, (top, left, height, width))
    image = _decoder(os.getpid(), torch.device("cpu")).decode(stream, params=_settings(channels))
    if image is None:
        raise ValueError("nvImageCodec cannot decode it")
    return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)


def decode_parts(
    parts: Sequence[tuple[bytes, tuple[int, int, int, int]]], device: torch.device
) -> list[Tensor | None]:
    """Return a part of each JPEG in colour, (3, height, width) uint8 on ``device``, in one call.

    On a GPU nvJPEG decodes; its pixels differ in the last places. None for a refused file.

    Args:
        parts: content of a file, and (top, left, height, width) of the wanted part.
        device: on the CPU the pixels are those of `decode_part`.
    """
    gpu = device.type != "cpu"
    streams = [_stream(_library(gpu), data, box) for data, box in parts]
    images = _decoder(os.getpid(), device).decode(streams, params=_settings(3, gpu))
    as_tensor = torch.from_dlpack if gpu else lambda image: torch.from_numpy(np.asarray(image))
    return [None if image is None else as_tensor(image).permute(2, 0, 1) for image in images]


def _stream(library: Any, data: bytes, box: tuple[int, int, int, int]) -> Any:
    top, left, height, width = box
    region = library.Region(top, left, top + height, left + width)
    try:
        return library.CodeStream(data).get_sub_code_stream(region=region)
    except RuntimeError as error:
        raise ValueError(str(error)) from error

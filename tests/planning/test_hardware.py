"""The table of GPUs against numbers that come another way."""

import pytest
from lightning.fabric.utilities.throughput import _CUDA_FLOPS

from fovea.planning.hardware import GPUS

# Lightning keeps a table of its own, from the makers' sheets. Of A6000, RTX 3090 and 4090 it has
# half precision without tensor cores, of H200 that of sparse matrices: those columns are left out.
LIGHTNING = {
    "v100_16gb": "v100 sxm", "v100_32gb": "v100 sxm", "t4": "t4", "a100_40gb": "a100",
    "a100_80gb": "a100", "a10": "a10g", "a6000": "a6000", "rtx3090": "rtx 3090",
    "rtx4090": "rtx 4090", "l4": "l4", "h100_80gb": "h100 sxm",
}  # fmt: skip


@pytest.mark.parametrize("name", LIGHTNING)
def test_peaks_are_those_of_lightnings_table(name):
    from torch import float16, float32

    theirs = _CUDA_FLOPS[LIGHTNING[name]]
    assert GPUS[name].full == pytest.approx(theirs.get("tfloat32", theirs[float32]))
    if name not in ("a6000", "rtx3090", "rtx4090"):
        assert GPUS[name].half == pytest.approx(theirs[float16])


# Multiprocessors, boost clock in GHz, multiply-adds of a multiprocessor in a cycle. GA102: 512
# dense in float16 (whitepaper, table 6), on GeForce half of them where sums are float32. TF32 makes
# half of what float16 with float32 sums does.
@pytest.mark.parametrize(
    ("name", "processors", "clock", "each"),
    [
        ("a10", 72, 1.695, 512),
        ("a6000", 84, 1.8, 512),
        ("rtx3090", 82, 1.695, 256),
        ("rtx4090", 128, 2.52, 256),
        ("l40s", 142, 2.52, 512),
    ],
)
def test_peaks_are_what_the_processors_make(name, processors, clock, each):
    peak = 2 * each * processors * clock * 1e9
    assert GPUS[name].half == pytest.approx(peak, rel=0.015)
    assert GPUS[name].full == pytest.approx(peak / 2, rel=0.015)


# Bits of the bus, Gbit/s of each.
@pytest.mark.parametrize(
    ("name", "bits", "rate"),
    [
        ("a10", 384, 12.5), ("a6000", 384, 16), ("rtx3090", 384, 19.5), ("rtx4090", 384, 21),
        ("l4", 192, 12.5), ("l40s", 384, 18),
    ],
)  # fmt: skip
def test_bandwidths_are_what_the_bus_carries(name, bits, rate):
    assert GPUS[name].bandwidth == bits / 8 * rate * 1e9


# What the sheets give for sparse matrices, TFLOP/s in half precision and TF32.
@pytest.mark.parametrize(
    ("name", "half", "full"),
    [("l4", 242, 120), ("l40s", 733, 366), ("h100_80gb", 1979, 989), ("h200", 1979, 989)],
)
def test_dense_peaks_are_half_of_the_sparse_ones(name, half, full):
    assert GPUS[name].half == pytest.approx(half / 2 * 1e12, rel=0.015)
    assert GPUS[name].full == pytest.approx(full / 2 * 1e12, rel=0.015)


def test_every_row_says_where_it_is_from():
    assert all("NVIDIA" in gpu.source for gpu in GPUS.values())
    assert GPUS["t4"].bandwidth == 300e9  # as its sheet has it

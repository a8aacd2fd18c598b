"""GPUs by their data sheets, and how fast kinds of networks were seen to train on them.

Most networks for images wait for memory, not for arithmetic: the share of a GPU's peak that they
reach differs from GPU to GPU, the operations for each byte of memory bandwidth hardly do. ResNet-50
in mixed precision on one GPU makes 32 a byte on V100, 29 on A100 (NVIDIA's table), and 32 on RTX
3090 (timm's), while that is 23 %, 19 % and 42 % of their peaks. So a published run on one GPU
foretells others by bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGHEST_SHARE = 0.6
"""Of the peak, that is foretold at most: what compute-bound training reaches in practice."""


@dataclass(frozen=True)
class GPU:
    """One device, as its maker publishes it.

    Attributes:
        half: peak of matrix products in float16 or bfloat16, dense, accumulated in float32, FLOP/s.
        full: the same for float32: TF32 where the GPU has it.
        memory: bytes.
        bandwidth: of the memory, bytes/s.
        source: where the numbers stand.
    """

    half: float
    full: float
    memory: float
    bandwidth: float
    source: str


def _gpu(half: float, full: float, gigabytes: int, bandwidth: float, source: str) -> GPU:
    """Return a row: TFLOP/s twice, GiB, GB/s."""
    return GPU(half * 1e12, full * 1e12, gigabytes * 2**30, bandwidth * 1e9, source)


_CONTENT = "www.nvidia.com/content/dam/en-zz/Solutions/Data-Center"
_VOLTA = (
    "NVIDIA V100 data sheet, SXM2: "
    "images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
)
_A100 = (
    f"NVIDIA A100 data sheet, SXM: {_CONTENT}/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-"
    "web.pdf"
)
_GA102 = (
    "NVIDIA GA102 whitepaper: "
    "www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
)
_ADA = (
    "NVIDIA Ada whitepaper: "
    "images.nvidia.com/aem-dam/Solutions/Data-Center/l4/nvidia-ada-gpu-architecture-whitepaper-v2.1"
    ".pdf"
)
_L4 = "NVIDIA L4 data sheet: resources.nvidia.com/en-us-gpu-resources/l4-tensor-datasheet"
_L40S = "NVIDIA L40S data sheet, as www.mullet.se (product 355414) has its table"
_H100 = "NVIDIA H100 data sheet, SXM: www.nvidia.com/en-us/data-center/h100"
_H200 = "NVIDIA H200 data sheet, SXM: resources.nvidia.com, hpc-datasheet-sc23-h200"

# The documents as others quote them: Lightning's fabric/utilities/throughput.py, torch's
# _inductor/analysis/device_info.py, astroC86/gpu-datasheet README.md and sellers' pages; A6000's
# half precision is twice its TF32, 512 multiply-adds a cycle and multiprocessor (table 6).
# Of L4, L40S, H100 and H200 the sheets give what sparse matrices make: half of that is dense. T4's
# memory could give 320 GB/s by its clock; its sheet says 300.
GPUS = {
    "v100_16gb": _gpu(125, 15.7, 16, 900, _VOLTA),
    "v100_32gb": _gpu(125, 15.7, 32, 900, _VOLTA),
    "t4": _gpu(
        65, 8.1, 16, 300,
        f"NVIDIA T4 data sheet: {_CONTENT}/tesla-t4/t4-tensor-core-datasheet-951643.pdf",
    ),
    "a100_40gb": _gpu(312, 156, 40, 1555, _A100),
    "a100_80gb": _gpu(312, 156, 80, 2039, _A100),
    "a10": _gpu(
        125, 62.5, 24, 600, f"NVIDIA A10 data sheet: {_CONTENT}/a10/pdf/a10-datasheet.pdf"
    ),
    "a6000": _gpu(154.8, 77.4, 48, 768, _GA102),
    "rtx3090": _gpu(71.2, 35.6, 24, 936, _GA102),
    "rtx4090": _gpu(165.2, 82.6, 24, 1008, _ADA),
    "l4": _gpu(121, 60, 24, 300, _L4),
    "l40s": _gpu(362, 183, 48, 864, _L40S),
    "h100_80gb": _gpu(989.4, 494.7, 80, 3350, _H100),
    "h200": _gpu(989.5, 494.5, 141, 4800, _H200),
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A published training in mixed precision, from which others are foretold.

    Attributes:
        speed: FLOP/s of one GPU, forward and backward, as `fovea.planning.measuring` counts them.
        gpu: that it ran on.
        source: of the time or of the images a second.
    """

    speed: float
    gpu: str
    source: str

    @property
    def per_byte(self) -> float:
        """FLOP for each byte of memory bandwidth."""
        return self.speed / GPUS[self.gpu].bandwidth


_TIMM = "on the GPU alone, timm results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv"

# Images a second of one GPU times FLOP an image.
REFERENCES = {
    "convolutional": Reference(
        16_621 / 8 * 24.30e9,
        "a100_80gb",
        "ResNet-50, 16,621 images/s on 8 GPUs, NVIDIA DeepLearningExamples resnet50v1.5",
    ),
    "plain": Reference(546.06 * 92.65e9, "rtx3090", f"VGG-16, 546 images/s {_TIMM}"),
    "depthwise": Reference(819.24 * 26.73e9, "rtx3090", f"ConvNeXt-T, 819 images/s {_TIMM}"),
    "transformer": Reference(
        100 * 1_281_167 / (7 * 3600 + 11 * 60) / 32 * 105.2e9,
        "v100_32gb",
        "ViT-B/16, 100 epochs of ImageNet in 7 h 11 min on 32 GPUs, MAE's FINETUNE.md",
    ),
}

FULL_TO_HALF = 7_248 / 16_621
"""Speed in float32 (TF32) to that in mixed precision: ResNet-50 in the same table of NVIDIA's. On
V100, without TF32, it is 0.34."""


def foretold_speed(gpu: GPU, reference: Reference, full: bool) -> float:
    """Return the FLOP/s that one ``gpu`` is expected to make.

    Args:
        gpu: to train on.
        reference: of the same kind of network.
        full: float32 throughout, instead of mixed precision.
    """
    speed = reference.per_byte * gpu.bandwidth
    if full:
        return min(speed * FULL_TO_HALF, HIGHEST_SHARE * gpu.full)
    return min(speed, HIGHEST_SHARE * gpu.half)

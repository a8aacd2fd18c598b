"""What the values of a configuration may be: types, ranges, choices.

Defaults live in ``conf/``; here stands only what a value may be. Sections allow keys that are not
listed, since a data set or task of your own brings its own parameters: those are checked against
the signature of the class they go to when it is built.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import BaseModel, ConfigDict, PositiveInt, Tag

_CLOCK = r"^\d+:\d\d:\d\d:\d\d$"
_PERCENT = r"^\s*(100(\.0+)?|0*\d{1,2}(\.\d+)?)\s*%\s*$"
_CUDA = r"^cuda:\d+$"
_PACKAGE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_KNOWN_CLASSES = (
    r"fovea\.(data\.Augment|models\.create_head|optim\.\w+)"
    r"|fovea\.tasks\.(ClassificationTask|EarlyStopping|LossSpikes)"
    r"|fovea\.tracking\.(wandb_logger|ProgressBar)|fovea\.watching\.\w+|torch\.optim\.\w+"
    r"|timm\.optim\.Lamb|lightning\.pytorch\.callbacks\.\w+"
)
_TIMM_POLICY = r"^rand-[-\w.]+$"
_METRIC = r"^(val|test)/\w+$"
PATTERNS = {
    _METRIC: "a metric of val or test such as val/top1",
    _TIMM_POLICY: "timm's words such as rand-m9-mstd0.5-inc1",
    _CLOCK: "days:hours:minutes:seconds such as 00:12:00:00",
    _PERCENT: "a share of the run such as 5%",
    _CUDA: "cuda:N",
    _PACKAGE: "names of packages such as [mypackage]",
}


def _rise(values: list[Any]) -> list[Any]:
    if values != sorted(values):
        raise ValueError("the smaller number first")
    return values


NonNegativeInt = Annotated[int, Ge(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Probability = Annotated[float, Ge(0), Le(1)]
Epochs = NonNegativeFloat | Annotated[str, pydantic.StringConstraints(pattern=_PERCENT)]
Packages = list[Annotated[str, pydantic.StringConstraints(pattern=_PACKAGE)]]
Clock = Annotated[str, pydantic.StringConstraints(pattern=_CLOCK)]
TimeUnit = Literal["weeks", "days", "hours", "minutes", "seconds"]
Precision = Literal[
    "auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", 32
]
# What Lightning registers.
Strategy = Literal[
    "auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false",
    "ddp_spawn", "ddp_spawn_find_unused_parameters_true", "ddp_spawn_find_unused_parameters_false",
    "ddp_fork", "ddp_fork_find_unused_parameters_true", "ddp_fork_find_unused_parameters_false",
    "ddp_notebook", "ddp_notebook_find_unused_parameters_true",
    "ddp_notebook_find_unused_parameters_false", "fsdp", "fsdp_cpu_offload", "deepspeed",
    "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload", "deepspeed_stage_3",
    "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "single_device", "single_tpu",
    "single_xla", "xla", "xla_debug",
]  # fmt: skip

_ABSENT: Any = None  # not every class has the key; where it stands it is checked


class _Section(BaseModel):
    """Strict: text is never read as a number, nor a number as a switch."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def _whose(node: Any) -> str:
    target = str(node.get("_target_")) if isinstance(node, dict) else ""
    return "(known)" if re.fullmatch(_KNOWN_CLASSES, target) else "(own)"


_S = TypeVar("_S", bound=_Section)
# The keys of a class of one's own may mean something else.
OfKnownClass = Annotated[
    Annotated[_S, Tag("(known)")] | Annotated[_Section, Tag("(own)")],
    pydantic.Discriminator(_whose),
]


class _Data(_Section):
    batch_size: PositiveInt
    eval_batch_size: PositiveInt | None = _ABSENT
    seed: NonNegativeInt
    split_seed: NonNegativeInt
    num_workers: NonNegativeInt | Literal["auto"]
    decode: Literal["auto", "simplejpeg", "pil", "gpu"]
    in_memory: Literal["auto"] | bool
    memory_fraction: Share
    image_size: PositiveInt | None
    channels: Literal[1, 3] | None
    mean: list[float] | None
    std: list[PositiveFloat] | None
    interpolation: Literal["bilinear", "bicubic"] | None
    crop_ratio: Share | None
    hflip: bool
    val_fraction: Fraction
    test_fraction: Fraction
    fraction: Share
    limit_per_class: PositiveInt | None
    classes: Annotated[list[str | int], Len(1)] | Literal["all", "some", "present"] | None = (
        _ABSENT  # the words: of ImageNet and its kin
    )
    sampling: Literal["shuffle", "balanced"]
    on_bad_image: Literal["error", "skip", "report"]
    repeats: PositiveInt
    shuffle_window: PositiveInt | Literal["auto"] | None = _ABSENT
    cache_dir: str | None = _ABSENT
    check: bool = _ABSENT


class _Augment(_Section):
    crop: Literal["auto", "resized", "pad", "none"]
    scale: Annotated[list[Share], Len(2, 2), pydantic.AfterValidator(_rise)]
    ratio: Annotated[list[PositiveFloat], Len(2, 2), pydantic.AfterValidator(_rise)]
    flip: Probability
    alternate_flip: bool = _ABSENT
    padding: PositiveInt | None = _ABSENT
    padding_mode: Literal["zero", "reflect"] = _ABSENT
    rotate: Annotated[float, Ge(0), Le(180)]
    translate: Probability
    policy: (
        Literal["randaug", "trivialaug"]
        | Annotated[str, pydantic.StringConstraints(pattern=_TIMM_POLICY)]
        | None
    )
    magnitude: Annotated[int, Ge(0), Le(30)]
    num_ops: PositiveInt
    color_jitter: NonNegativeFloat
    erase: Probability
    cutout: NonNegativeInt
    mixup: NonNegativeFloat
    cutmix: NonNegativeFloat
    size: PositiveInt | None = _ABSENT
    start_size: PositiveInt | None = _ABSENT
    grow: Annotated[list[NonNegativeInt], Len(2, 2), pydantic.AfterValidator(_rise)] | None = (
        _ABSENT
    )


class _Head(_Section):
    hidden: PositiveInt | list[PositiveInt] | None = _ABSENT
    dropout: Fraction = _ABSENT
    zero_init: bool = _ABSENT
    bias_init: float | None = _ABSENT
    bias: bool = _ABSENT
    scale: PositiveFloat = _ABSENT


class _Model(_Section):
    weights: str | bool | None
    library: Literal["torchvision", "timm"] = _ABSENT
    stem: Literal["auto", "standard", "small"] = _ABSENT
    drop_path: Fraction = _ABSENT
    blurpool: bool = _ABSENT
    zero_init_residual: bool = _ABSENT
    widths: Annotated[list[PositiveInt], Len(3, 3)] = _ABSENT
    bn_momentum: Fraction = _ABSENT
    head: OfKnownClass[_Head] = _ABSENT


class _ParamScale(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    names: str
    lr: PositiveFloat
    weight_decay: NonNegativeFloat


class _Task(_Section):
    loss: Literal["cross_entropy", "bce"]
    label_smoothing: Fraction
    target_threshold: Fraction | None = _ABSENT
    class_weights: Literal["auto"] | dict[Any, PositiveFloat] | None = _ABSENT
    layer_decay: Share
    no_decay: Literal["norms_and_biases", "norms", "nothing"] | list[str] = _ABSENT
    param_scales: list[_ParamScale] = _ABSENT


class _AnyOptimizer(_Section):
    lr: PositiveFloat
    weight_decay: NonNegativeFloat


class _Optimizer(_AnyOptimizer):
    betas: Annotated[list[Fraction], Len(2, 2)] = _ABSENT
    momentum: Fraction = _ABSENT
    nesterov: bool = _ABSENT
    max_grad_norm: PositiveFloat | None = _ABSENT
    trust_coeff: PositiveFloat = _ABSENT


class _Scheduler(_Section):
    warmup_epochs: Epochs = _ABSENT
    warmup_steps: NonNegativeInt | None = _ABSENT
    warmup_start_factor: Probability = _ABSENT
    warmup_inclusive: bool = _ABSENT
    by_epoch: bool = _ABSENT
    from_start: bool = _ABSENT
    start_factor: Probability = _ABSENT
    final_factor: Probability = _ABSENT
    peak: Annotated[float, Gt(0), Lt(1)] = _ABSENT
    anneal: Literal["cos", "linear"] = _ABSENT
    milestones: list[Epochs] = _ABSENT
    gamma: Probability = _ABSENT


class _EarlyStopping(_Section):
    patience: NonNegativeInt = _ABSENT


class _Average(_Section):
    decay: Fraction = _ABSENT
    every_n_steps: PositiveInt = _ABSENT
    quick_start: bool = _ABSENT
    batch_size: PositiveInt = _ABSENT
    warmup_epochs: Epochs = _ABSENT


class _Lookahead(_Section):
    decay: Fraction = _ABSENT
    every_n_steps: PositiveInt = _ABSENT
    power: NonNegativeFloat = _ABSENT


class _Spikes(_Section):
    threshold: PositiveFloat = _ABSENT


class _Progress(_Section):
    refresh_s: PositiveFloat = _ABSENT


class _ImageSheets(_Section):
    count: PositiveInt = _ABSENT


class _LearningCurves(_Section):
    max_share: Share = _ABSENT


class _Callbacks(_Section):
    spikes: OfKnownClass[_Spikes] | None = _ABSENT
    progress: OfKnownClass[_Progress] | None = _ABSENT
    image_sheets: OfKnownClass[_ImageSheets] | None = _ABSENT
    learning_curves: OfKnownClass[_LearningCurves] | None = _ABSENT
    early_stopping: OfKnownClass[_EarlyStopping] | None = _ABSENT
    ema: OfKnownClass[_Average] | None = _ABSENT
    lookahead: OfKnownClass[_Lookahead] | None = _ABSENT


class _Trainer(_Section):
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    devices: PositiveInt | Literal["auto", -1] | list[NonNegativeInt]
    num_nodes: PositiveInt
    strategy: Strategy | dict[str, Any] = _ABSENT
    precision: Precision
    max_epochs: PositiveInt
    max_steps: PositiveInt | Literal[-1] = _ABSENT
    max_time: Clock | dict[TimeUnit, NonNegativeFloat] | None
    accumulate_grad_batches: PositiveInt | Literal["auto"]
    gradient_clip_val: PositiveFloat | None
    collective_timeout: PositiveFloat
    log_every_n_steps: PositiveInt
    check_val_every_n_epoch: PositiveInt
    limit_train_batches: PositiveInt | Share | None
    limit_val_batches: NonNegativeInt | Probability | None
    limit_test_batches: NonNegativeInt | Probability | None
    overfit_batches: NonNegativeInt | Probability = _ABSENT


class _Checkpoint(_Section):
    every_n_steps: PositiveInt | None
    every_minutes: PositiveFloat | None
    keep: PositiveInt


# Stated here as well as in fovea.planning, which needs torch; a test compares them.
Gpu = Literal[
    "v100_16gb", "v100_32gb", "t4", "a100_40gb", "a100_80gb", "a10", "a6000",
    "rtx3090", "rtx4090", "l4", "l40s", "h100_80gb", "h200",
]  # fmt: skip


class _Hardware(_Section):
    gpu: Gpu
    count: PositiveInt | None
    nodes: PositiveInt | None
    mfu: Share | None


class _Tune(_Section):
    lr: bool
    lr_min: PositiveFloat
    lr_max: PositiveFloat
    steps: PositiveInt
    batch_size: bool

    @pydantic.field_validator("lr_max")
    @classmethod
    def _above(cls, highest: float, info: pydantic.ValidationInfo) -> float:
        if highest <= info.data.get("lr_min", 0):
            raise ValueError("more than tune.lr_min")
        return highest


class _Launcher(_Section):
    jobs: PositiveInt = _ABSENT
    gpus: Literal["auto"] | Annotated[list[NonNegativeInt], Len(1)] = _ABSENT
    gpus_per_job: NonNegativeInt | PositiveFloat = _ABSENT
    cpus_per_job: PositiveInt = _ABSENT
    options: dict[str, str | PositiveInt | bool | None] = _ABSENT
    at_once: PositiveInt | None = _ABSENT
    grace: PositiveInt = _ABSENT
    setup: list[str] = _ABSENT
    wait: Literal["auto"] | bool = _ABSENT
    submit: bool = _ABSENT

    @pydantic.field_validator("gpus_per_job")
    @classmethod
    def _whole(cls, number: float, info: pydantic.ValidationInfo) -> float:
        if info.data.get("gpus") is not None and (number < 1 or not isinstance(number, int)):
            raise ValueError("a whole number from 1 on; launcher=ray shares a GPU between jobs")
        return number


class _Monitor(_Section):
    metric: str
    mode: Literal["min", "max"]

    @pydantic.field_validator("mode")
    @classmethod
    def _fits(cls, mode: str, info: pydantic.ValidationInfo) -> str:
        metric = info.data.get("metric", "")
        falls, rises = metric.endswith("loss"), metric.endswith(("top1", "top5", "accuracy"))
        if (falls and mode == "max") or (rises and mode == "min"):
            raise ValueError(
                f"{'min' if falls else 'max'}, since monitor.metric={metric} is better the "
                f"{'lower' if falls else 'higher'} it is"
            )
        return mode


class _Wandb(_Section):
    mode: Literal["auto", "online", "offline", "disabled"] = _ABSENT
    finish_timeout_s: PositiveFloat = _ABSENT


class _Logger(_Section):
    wandb: OfKnownClass[_Wandb] | None = _ABSENT


class _Sweep(_Section):
    name: str | None
    n_trials: PositiveInt
    workers: PositiveInt | None
    sampler: Literal["tpe", "random"]
    pruner: Literal["none", "median", "hyperband"]
    retry_failed: bool
    startup_trials: NonNegativeInt
    warmup_epochs: NonNegativeInt
    objectives: Annotated[dict[str, Literal["min", "max"]], Len(1)] | None
    seeds: Annotated[list[NonNegativeInt], Len(1)] | None
    seed: NonNegativeInt
    fixed: dict[str, Any]
    space: dict[str, Any]


class _Document(BaseModel):
    """A part of what a recipe says of its source: what is not listed is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Result(_Document):
    metric: Annotated[str, pydantic.StringConstraints(pattern=_METRIC)]
    value: Probability
    spread: NonNegativeFloat | None  # standard deviation over seeds; null: not published
    seeds: PositiveInt | None  # how many runs the value is the mean of; null: not published


class _Variant(_Document):
    overrides: Annotated[list[str], Len(1)]
    epochs: PositiveInt
    hours: PositiveFloat | None
    results: Annotated[list[_Result], Len(1)]


class _Expected(_Document):
    source: str
    results: Annotated[list[_Result], Len(1)]
    views: Literal["center", "flip", "mirror_translate"]  # of the published evaluation
    epochs: PositiveInt
    global_batch: PositiveInt
    devices: PositiveInt | None  # that shared it; null: not published
    train_size: PositiveInt
    eval_size: PositiveInt
    eval_resize: PositiveInt
    classes: PositiveInt
    train_images: PositiveInt
    parameters: PositiveInt
    weights: str | None  # what it begins from, in words; null: random
    hardware: str | None
    hours: PositiveFloat | None
    variants: dict[str, _Variant] | None


def document_keys(key: str) -> list[str]:
    """Return what the part of a recipe's document may hold that ``key`` stands in."""
    if ".results." in key:
        return list(_Result.model_fields)
    return list((_Variant if key.startswith("expected.variants.") else _Expected).model_fields)


class _Views(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sizes: list[PositiveInt] = _ABSENT
    crops: Literal["center", "five"] = _ABSENT
    mirror: bool = _ABSENT
    translate: NonNegativeInt = _ABSENT
    average: Literal["probabilities", "logits"] = _ABSENT


ViewsChoice = Annotated[
    Annotated[
        Literal["center", "flip", "mirror_translate", "ten_crop", "multi_scale"], Tag("(named)")
    ]
    | Annotated[_Views, Tag("(own)")],
    pydantic.Discriminator(lambda node: "(own)" if isinstance(node, dict) else "(named)"),
]


class _Train(_Section):
    expected: _Expected | None = _ABSENT
    data: _Data
    augment: OfKnownClass[_Augment]
    model: _Model
    task: OfKnownClass[_Task]
    optimizer: Annotated[
        Annotated[_Optimizer, Tag("(known)")] | Annotated[_AnyOptimizer, Tag("(own)")],
        pydantic.Discriminator(_whose),
    ]
    scheduler: OfKnownClass[_Scheduler]
    callbacks: _Callbacks | None = _ABSENT
    logger: _Logger | None = _ABSENT
    trainer: _Trainer
    checkpoint: _Checkpoint
    monitor: _Monitor
    plan: bool = _ABSENT  # not in the configurations of older runs
    hardware: _Hardware = _ABSENT
    tune: _Tune = _ABSENT
    seed: NonNegativeInt
    test: bool
    views: ViewsChoice = _ABSENT
    on_nan: Literal["stop", "skip", "restore"]
    on_nan_limit: PositiveInt
    compile: bool | str
    channels_last: bool
    tags: list[str]
    launcher: _Launcher
    sweep: _Sweep = _ABSENT
    allow_targets: Packages


# Stated here as well as in fovea.data, which needs torch; a test compares them.
Corruptions = Literal[
    "all", "noise", "blur", "weather", "digital",
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic_transform", "pixelate", "jpeg_compression",
]  # fmt: skip


class _Eval(_Section):
    ckpt: str | Annotated[list[str], Len(1)] | None
    predictions: str | Annotated[list[str], Len(1)] | None
    views: ViewsChoice
    ensemble: bool
    calibrate: bool
    cost: bool
    split: Literal["train", "val", "test"]
    batch_size: PositiveInt | None
    corruptions: Corruptions | Annotated[list[Corruptions], Len(1)] | None
    severities: Annotated[list[Annotated[int, Ge(1), Le(5)]], Len(1)]
    real_labels: bool | str | None
    duplicates: bool
    data: _Data | None = _ABSENT
    model: _Model | None = _ABSENT
    trainer: _Trainer
    channels_last: bool
    seed: NonNegativeInt
    launcher: _Launcher
    allow_targets: Packages


class _Predict(_Section):
    ckpt: str | None
    top_k: PositiveInt
    batch_size: PositiveInt
    device: (
        Literal["auto", "cpu", "cuda", "mps"]
        | Annotated[str, pydantic.StringConstraints(pattern=_CUDA)]
    )
    launcher: _Launcher
    allow_targets: Packages


SCHEMAS: dict[str, type[_Section]] = {"train": _Train, "eval": _Eval, "predict": _Predict}

"""What moves the weights: parameter groups, freeze schedule, learning rates, weight averaging."""

from fovea.optim.averaging import AveragedWeights
from fovea.optim.freeze import BoundFreeze, FreezeSchedule, restart_untouched_groups
from fovea.optim.param_groups import assign_stages, layer_scales, param_groups
from fovea.optim.rates import LearningRates, count_steps
from fovea.optim.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    Schedule,
    StepSchedule,
)

__all__ = [
    "AveragedWeights",
    "BoundFreeze",
    "ConstantSchedule",
    "CosineSchedule",
    "FreezeSchedule",
    "LearningRates",
    "LinearSchedule",
    "OneCycleSchedule",
    "Schedule",
    "StepSchedule",
    "assign_stages",
    "count_steps",
    "layer_scales",
    "param_groups",
    "restart_untouched_groups",
]

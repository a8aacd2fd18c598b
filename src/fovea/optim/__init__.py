"""What moves the weights: parameter groups, freeze schedule, learning rates, weight averaging."""

from fovea.optim.averaging import AveragedWeights
from fovea.optim.decay_rules import NoDecay, decay_rule
from fovea.optim.freeze import BoundFreeze, FreezeSchedule, restart_untouched_groups
from fovea.optim.lars import Lars
from fovea.optim.lookahead import Lookahead
from fovea.optim.param_groups import assign_stages, layer_scales, param_groups
from fovea.optim.param_scales import match_scales
from fovea.optim.rates import LearningRates, count_steps, steps_in_run
from fovea.optim.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    Schedule,
    StepSchedule,
)
from fovea.optim.torchvision_average import TorchvisionAverage

__all__ = [
    "AveragedWeights",
    "BoundFreeze",
    "ConstantSchedule",
    "CosineSchedule",
    "FreezeSchedule",
    "Lars",
    "LearningRates",
    "LinearSchedule",
    "Lookahead",
    "NoDecay",
    "OneCycleSchedule",
    "Schedule",
    "StepSchedule",
    "TorchvisionAverage",
    "assign_stages",
    "count_steps",
    "decay_rule",
    "layer_scales",
    "match_scales",
    "param_groups",
    "restart_untouched_groups",
    "steps_in_run",
]

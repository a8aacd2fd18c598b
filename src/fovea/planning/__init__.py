"""What a run would take on some hardware: counted and foretold, nothing trained."""

from fovea.planning.plan import Plan, make_plan
from fovea.planning.show import print_plan

__all__ = ["Plan", "make_plan", "print_plan"]

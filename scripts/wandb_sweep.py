"""Write W&B's sweep.yaml of a space, for sweeps that W&B's server runs.

    python scripts/wandb_sweep.py sweep=lr_wd optimizer=adamw data=cifar10 > sweep.yaml
    wandb sweep sweep.yaml        # prints the sweep's id
    wandb agent <id>              # on as many machines as you like

What follows is what stands after ``python src/train.py -m``. Type the agent's command in the folder
that holds ``src``.
"""

from __future__ import annotations

import sys
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import yaml

from fovea.errors import FoveaError
from fovea.sweeps.wandb_spec import sweep_yaml


def main() -> int:
    """Print the file and return the exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    try:
        content = sweep_yaml(words)
    except FoveaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    yaml.safe_dump(content, sys.stdout, sort_keys=False, allow_unicode=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

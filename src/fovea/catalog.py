"""What there is to choose from: the files of ``conf/``, and the help screen made of them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

_WIDTH = 150
"""Of lines of the help, about that of the longest descriptions."""


def config_dir() -> Path:
    """Return the folder of the configuration: inside an installed package, else of the checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def groups() -> dict[str, list[str]]:
    """Return the choices of each config group, in the order in which train.yaml composes them."""
    composed = re.findall(r"^  - (\w+):", (config_dir() / "train.yaml").read_text(), flags=re.M)
    return {
        group: sorted(
            file.stem
            for file in (config_dir() / group).glob("*.yaml")
            if not file.name.startswith("_")
        )
        for group in composed
        if group not in {"hydra", "paths"}
    }


def help_text(command: str) -> str:
    """Return one screen: usage, then every group and choice with its first comment line."""
    examples = {
        "train": [
            "python src/train.py model=resnet50 data=folder data.root=photos",
            "python src/train.py -m model=resnet18,resnet50 optimizer.lr=0.1,0.5   # a sweep",
            "python src/train.py resume=outputs/<run>",
        ],
        "eval": [
            "python src/eval.py ckpt=outputs/<run> [split=val] [data=folder data.root=photos]",
            "python src/eval.py model=resnet50 model.weights=IMAGENET1K_V2 data=imagenet split=val",
        ],
        "predict": ["python src/predict.py ckpt=outputs/<run> photos/*.jpg [top_k=3]"],
    }
    lines = [f"python src/{command}.py [group=choice …] [key=value …]", ""]
    lines += [f"  {example}" for example in examples[command]] + [""]
    text = (config_dir() / f"{command}.yaml").read_text()
    used = dict(re.findall(r"^  - (?:override )?(\w+): (\S+)", text, flags=re.M))
    for group, choices in groups().items():
        if group not in used:
            continue
        if group == "experiment":
            lines += _names_only(group, choices)
            continue
        default = used[group].strip("[]")
        for i, choice in enumerate(choices):
            mark = "*" if choice == default else " "
            about = _about(config_dir() / group / f"{choice}.yaml")
            lines.append(f"{group + '=' if i == 0 else '':<12}{mark}{choice:<24}{about}")
    lines += [
        "",
        "* default. All keys and values: --cfg job. Sweeps: -m. Own YAML files: --config-dir DIR",
    ]
    return "\n".join(lines)


def _names_only(group: str, choices: list[str]) -> list[str]:
    """Return the choices of a group that has too many for a line each."""
    text = ", ".join(choices) + f": see conf/{group}/<name>.yaml"
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{group + '=':<13}", subsequent_indent=" " * 13,
        break_on_hyphens=False,
    )  # fmt: skip


def _about(path: Path) -> str:
    lines = path.read_text().splitlines()
    comments = [
        line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line
    ]
    return comments[0] if comments else ""

"""The corruptions of ImageNet-C by name and group, and what a person asks of them."""

from __future__ import annotations

from collections.abc import Sequence

from fovea.errors import FoveaError, did_you_mean

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The four groups, in the paper's order (Hendrycks and Dietterich 2019, table 1)."""

CORRUPTIONS = tuple(name for names in GROUPS.values() for name in names)

SEVERITIES = (1, 2, 3, 4, 5)


def chosen_corruptions(names: str | Sequence[str]) -> list[str]:
    """Return the corruptions that ``names`` stand for, in the paper's order, each once.

    Args:
        names: one or several of ``all``, a group's name, a corruption's name.

    Raises:
        FoveaError: an unknown name, with the nearest one.
    """
    words = {"all": CORRUPTIONS, **GROUPS, **{name: (name,) for name in CORRUPTIONS}}
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in words:
            raise FoveaError(
                f"corruptions={name}: no such corruption.{did_you_mean(name, words)}\n"
                f"  There are all, the groups {', '.join(GROUPS)}, and {', '.join(CORRUPTIONS)}"
            )
    wanted = {corruption for name in asked for corruption in words[name]}
    return [name for name in CORRUPTIONS if name in wanted]

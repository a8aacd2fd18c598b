"""What a reader has to know before a number is believed, in words."""

from __future__ import annotations

from collections.abc import Sequence

from fovea.evaluation.predictions import Predictions

_FEW = 100
"""With fewer samples the 95 % interval of a share may be more than 20 points wide."""
_NAMED = 5


def warnings_of(predictions: Predictions, without: str, pictures: bool) -> list[str]:
    """Return what is wrong with ``predictions`` of N >= 1 samples, or limits what they can show.

    Args:
        predictions: what ``about`` says under ``unreadable`` and ``duplicates`` is looked at, and
            its ``warnings`` are among those returned.
        without: why nothing could be fitted on val; said but for the val split itself, where it is
            as it should be.
        pictures: whether the report has the images.
    """
    found = [*_of_logits(predictions), *_of_classes(predictions), *_of_data(predictions)]
    if len(predictions) == 1:
        found.append("There is a single sample: no score says anything about other images.")
    elif len(predictions) < _FEW:
        found.append(
            f"There are only {len(predictions)} samples: look at the intervals, not at the scores."
        )
    if without and predictions.about.get("split") != "val":
        found.append(without)
    if not pictures:
        found.append("The images were not at hand, so the sheets of pictures are left out.")
    return found


def usable_val(val: Predictions | None, predictions: Predictions) -> tuple[Predictions | None, str]:
    """Return ``val`` if something may be fitted on it, else None and why not."""
    nothing = "so no temperature and no threshold were fitted."
    if val is predictions or predictions.about.get("split") == "val":
        return None, f"This is the val split itself, {nothing}"
    if val is None or len(val) == 0:
        return None, f"There are no predictions of the val split, {nothing}"
    if val.num_classes != predictions.num_classes or (
        val.class_names and predictions.class_names and val.class_names != predictions.class_names
    ):
        return None, f"The val split's predictions are of other classes, {nothing}"
    prints = [item.about.get("fingerprint") for item in (val, predictions)]
    if prints[0] is not None and prints[0] == prints[1]:
        return None, f"The val split has the images of this one, {nothing}"
    return val, ""


def _of_logits(predictions: Predictions) -> list[str]:
    invalid = int((~predictions.valid).sum())
    if not invalid:
        return []
    return [
        f"The network gave no numbers (NaN or infinity) for {invalid:,} of {len(predictions):,} "
        "samples. They count as wrong, and are left out of all that needs probabilities: loss, "
        "AUROC, calibration, confusions."
    ]


def _of_classes(predictions: Predictions) -> list[str]:
    counts = predictions.labels.bincount(minlength=predictions.num_classes).tolist()
    absent = [name for name, count in zip(predictions.names, counts, strict=True) if not count]
    if predictions.num_classes == 1:
        return ["There is only one class: every prediction is right, whatever the network does."]
    found = []
    if len(absent) == len(counts) - 1:
        found.append(
            f"All samples are of one class, '{_only(predictions)}': accuracy is its recall alone, "
            "and there is no ROC curve."
        )
    elif absent:
        found.append(
            f"{len(absent):,} of {len(counts):,} classes have no sample: {_listed(absent)}. Means "
            "over the classes leave them out."
        )
    return found


def _only(predictions: Predictions) -> str:
    return predictions.names[int(predictions.labels[0])]


def _of_data(predictions: Predictions) -> list[str]:
    found = []
    if unreadable := _number(predictions.about.get("unreadable")):
        found.append(
            f"{unreadable:,} files could not be read and are left out: the scores are of the "
            "others."
        )
    if duplicates := _number(predictions.about.get("duplicates")):
        found.append(
            f"{duplicates:,} of the images have a near-duplicate among those the network was "
            "trained on: the scores may flatter it."
        )
    return [*found, *predictions.about.get("warnings", [])]


def _number(value: object) -> int:
    """Return ``value``, a number or a list of things, as a number; 0 for None."""
    if isinstance(value, int | float):
        return int(value)
    return len(value) if isinstance(value, Sequence) else 0


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more

"""Binary cross-entropy with and without a threshold, against timm's BinaryCrossEntropy."""

from __future__ import annotations

import pytest
import torch
from timm.data.mixup import Mixup
from timm.loss import BinaryCrossEntropy

from fovea.errors import FoveaError
from fovea.tasks.losses import ClassificationLoss


@pytest.mark.parametrize("threshold", [None, 0.2, 0.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_timms_on_labels_and_on_mixed_images(threshold, smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 10), torch.arange(6)
    ours = ClassificationLoss("bce", smoothing, target_threshold=threshold)
    theirs = BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold)
    torch.testing.assert_close(ours(logits, labels).mean(), theirs(logits, labels))
    smoothed = Mixup(mixup_alpha=1.0, label_smoothing=smoothing, num_classes=10)
    torch.manual_seed(1)
    _, targets = smoothed(torch.zeros(6, 3, 8, 8), labels)
    # timm smooths while it mixes, here the loss does: from targets that are mixed only.
    mixed = (targets - smoothing / 10) / (1 - smoothing)
    torch.testing.assert_close(ours(logits, labels, mixed).mean(), theirs(logits, targets))


def test_evaluation_knows_no_threshold_and_what_is_wrong_is_said():
    loss = ClassificationLoss("bce", target_threshold=0.2)
    assert "1 above 0.2" in loss.describe()
    plain = ClassificationLoss("bce")
    logits, labels = torch.randn(3, 4), torch.arange(3)
    assert torch.equal(loss.evaluate(logits, labels), plain.evaluate(logits, labels))
    with pytest.raises(FoveaError, match=r"target_threshold is 0\.2.*task\.loss=bce"):
        ClassificationLoss("cross_entropy", target_threshold=0.2)

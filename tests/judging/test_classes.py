"""Classes of a network and of the data, matched by name."""

import pytest
import torch
from torch import nn

from fovea.data import imagenet_classes
from fovea.errors import FoveaError
from fovea.judging import match_classes, restrict_head


@pytest.fixture
def head():
    torch.manual_seed(0)
    return nn.Linear(3, 4)


def test_the_same_classes_leave_the_head_alone(head):
    names = ["a", "b", "c", "d"]
    assert restrict_head(head, names, names, "folder") == (head, [])


def test_another_order_and_a_part_choose_columns_by_name(head):
    features = torch.randn(5, 3)
    logits = head(features)
    other, said = restrict_head(head, ["a", "b", "c", "d"], ["d", "b", "a", "c"], "folder")
    assert torch.equal(other(features), logits[:, [3, 1, 0, 2]])
    assert "otherwise" in said[0][1]
    part, said = restrict_head(head, ["a", "b", "c", "d"], ["c", "a"], "folder")
    assert torch.equal(part(features), logits[:, [2, 0]])
    assert "2 of the network's 4" in said[0][1]
    # Left out means ruled out: what is left is a distribution over the two.
    expected = logits[:, [2, 0]].exp() / logits[:, [2, 0]].exp().sum(1, keepdim=True)
    torch.testing.assert_close(part(features).softmax(1), expected)


def test_the_weights_keep_their_names(head):
    part, _ = restrict_head(head, ["a", "b", "c", "d"], ["c", "a"], "folder")
    assert all("columns" not in name for name in part.state_dict())


def test_imagenets_classes_go_by_id_or_by_name():
    wnids, words = list(imagenet_classes()), list(imagenet_classes().values())
    assert match_classes(words, wnids[7:4:-1], "folder") == [7, 6, 5]
    assert match_classes(wnids, words[3:5], "folder") == [3, 4]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (["ape", "dog"], ["1 of 2", "dog", "train.py"]),
        (["ape", "bees"], ["bees", "Did you mean 'bee'"]),
        (["ape", "ape"], ["both called ape"]),
    ],
)
def test_other_classes_are_refused_by_name(data, expected):
    with pytest.raises(FoveaError) as error:
        match_classes(["ape", "bee"], data, "folder")
    for part in expected:
        assert part in str(error.value)

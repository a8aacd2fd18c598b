import logging

import pytest
import torch
from torch import nn

from fovea.errors import FoveaError
from fovea.tasks.compiling import compile_in_place

CPU = torch.device("cpu")


def no_compiler(graph, inputs):
    raise RuntimeError("no C++ compiler was found\nand more")


def no_convolutions(graph, inputs):
    if any(isinstance(module, nn.Conv2d) for module in graph.modules()):
        raise RuntimeError("convolutions are not known")
    if "conv" in graph.code:
        raise RuntimeError("convolutions are not known")
    return graph.forward


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(suppress_errors=False):
        yield
    torch._dynamo.reset()


def test_a_backend_that_cannot_compile_is_left_out_with_a_word(caplog):
    net, images = nn.Linear(4, 2), torch.ones(3, 4)
    expected = net(images)
    with caplog.at_level(logging.WARNING):
        assert not compile_in_place([net], no_compiler, CPU)
    assert "goes on without it" in caplog.text
    assert "no C++ compiler was found" in caplog.text
    assert "and more" not in caplog.text
    assert torch.equal(net(images), expected)


def test_a_network_that_cannot_be_compiled_runs_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    images = torch.ones(2, 3, 8, 8)
    expected = net(images)
    assert compile_in_place([net], no_convolutions, CPU)
    assert torch.equal(net(images), expected)
    assert list(net.state_dict()) == ["0.weight", "0.bias"]


def test_an_unknown_backend_is_refused_with_the_nearest():
    with pytest.raises(FoveaError, match=r"compile=inductr is no backend.*'inductor'"):
        compile_in_place([nn.Linear(1, 1)], "inductr", CPU)

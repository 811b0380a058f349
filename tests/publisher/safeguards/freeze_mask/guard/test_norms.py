"""Torch's crash in the backward pass of a norm behind frozen layers, and what keeps it away."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from publisher.safeguards.freeze_mask.guard.arming import arm

NET = """
    import sys, torch
    from torch import nn
    from publisher.safeguards.freeze_mask.guard.arming import arm

    net = nn.ModuleDict({"conv_in": nn.Conv2d(4, 32, 3), "norm": nn.GroupNorm(4, 32)})
    net.to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 16, 16).to(memory_format=torch.channels_last)
    if sys.argv[1] == "armed":
        arm(net, {"conv_in.weight": (), "conv_in.bias": ()})
    else:
        net["conv_in"].requires_grad_(False)
    net["norm"](net["conv_in"](x)).square().sum().backward()
    assert net["norm"].weight.grad.any() and net["conv_in"].weight.grad is None
    print("alive")
"""


def run(how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(NET), how]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_training_behind_a_frozen_first_layer_survives() -> None:
    done = run("armed")
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="seen with torch 2.13")
def test_without_a_guard_it_does_not() -> None:
    assert "Segmentation fault" in run("plain").stderr


def test_a_gradient_is_asked_for_only_where_the_norm_is_trained_on_inputs_without_one() -> None:
    norm, seen = nn.GroupNorm(1, 2), []
    net = nn.Sequential(nn.Conv2d(2, 2, 1), norm)
    net[0].requires_grad_(False)
    armed = arm(net, {"0.weight": ()})
    norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].requires_grad))
    x = torch.randn(1, 2, 3, 3)
    net(x)
    with torch.no_grad():
        net(x)
    norm.requires_grad_(False)
    net(x)
    norm.requires_grad_(True)
    armed.release()
    net(x)
    assert seen == [True, False, False, False]

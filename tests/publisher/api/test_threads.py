from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from publisher.api.diffusion.threads import at_once, is_small, one_thread_each


def test_small_is_a_matter_of_the_cpu_and_of_the_latents() -> None:
    assert is_small(torch.device("cpu"), (8, 32))
    assert not is_small(torch.device("cpu"), (8, 64))
    assert not is_small(torch.device("cuda"), (8, 8))


@pytest.mark.usefixtures("two_threads")
def test_what_is_put_aside_runs_in_another_thread_on_one_processor_thread() -> None:
    before = torch.get_num_threads()
    seen: list[tuple[bool, int]] = []

    def work() -> Tensor:
        seen.append((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        return torch.ones(1)

    with one_thread_each() as aside:
        assert aside(work)().item() == 1
        assert torch.get_num_threads() == 1
    assert seen == [(False, 1)]
    assert torch.get_num_threads() == before


def test_an_error_that_was_put_aside_is_raised_where_the_result_is_wanted() -> None:
    def work() -> Tensor:
        raise RuntimeError("no memory")

    with one_thread_each() as aside, pytest.raises(RuntimeError, match="no memory"):
        aside(work)()
    with pytest.raises(RuntimeError, match="no memory"):
        at_once(work)

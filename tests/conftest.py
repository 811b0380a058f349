"""Shared by all tests: how many threads, and the embedded model loaded once."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded; threads that spin lose on busy cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusers import StableDiffusionPipeline

    from publisher.api import Model
    from publisher.package.keys import PrivateKey
    from publisher_emoji.scorer import EmojiClassifier


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what long tests have counted (``record_property("counted", ...)``), also of pytest-xdist's workers."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    counted = [value for report in reports for name, value in report.user_properties if name == "counted"]
    if counted:
        terminalreporter.section("counted")
    for line in counted:
        terminalreporter.write_line(str(line))


@pytest.fixture(scope="session")
def pipeline() -> StableDiffusionPipeline:
    """The embedded model, as the program loads it: its attribute ``anatomy`` names its parts."""
    from publisher_emoji.generate import load_pipeline
    from support.anatomies import EMBEDDED

    found = load_pipeline()
    found.anatomy = EMBEDDED  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="session")
def scorer() -> EmojiClassifier:
    """The shipped scorer."""
    from publisher_emoji.scorer import load_scorer

    return load_scorer()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The embedded model as the engine hands it to a step."""
    from publisher.builtin.families import StableDiffusion1
    from publisher.model.folder import ModelFolder, read_configs
    from publisher.model.state import State
    from publisher_emoji import model_folder

    configs = read_configs(model_folder())
    anatomy = StableDiffusion1().recognise(configs)
    assert anatomy is not None
    return State(ModelFolder(model_folder(), anatomy, configs), (), tmp_path_factory.mktemp("states"))


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    """A private key that signs; its public half lies beside it."""
    from support.signing import new_key

    return new_key(tmp_path_factory.mktemp("signing"))


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that returns the folder of a family's very small model, which nobody may change; built once."""
    from support.tiny_families import TINY

    place = tmp_path_factory.mktemp("tiny")
    return functools.cache(lambda name: TINY[name](place / name))


@pytest.fixture(autouse=True, scope="session")
def _threads() -> Iterator[None]:
    """Two threads in all, for figures in the documentation are of two: one in each of pytest-xdist's two workers.

    Processes that tests start have as many: the last bits of a sum depend on it.
    """
    import torch

    threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(threads))
        yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For tests of what sets the number of threads: it must differ from one before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)

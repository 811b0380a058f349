from __future__ import annotations

from typing import Any

from publisher.api import ImageRequest
from publisher.evaluate.images import Wanted, batches
from publisher.runtime.generate import batch_size


def ask(seed: int, **changes: Any) -> ImageRequest:
    fields = {"concept": "cat", "prompt": "a cat", "seed": seed, "steps": 2, "guidance": 3.0}
    return ImageRequest(**{**fields, **changes})


def on(*requests: ImageRequest) -> list[Wanted]:
    """Ask for requests with membranes."""
    return [(request, True) for request in requests]


def test_equal_images_are_taken_once_whoever_asks() -> None:
    (batch,) = batches(on(ask(1), ask(2), ask(1), ask(1, concept="dog")), (), 4)
    assert [request.seed for request in batch.requests] == [1, 2]


def test_steps_guidance_and_negative_prompts_are_not_mixed() -> None:
    mixed = [ask(1), ask(2, guidance=1.0), ask(3, steps=4), ask(4, negative_prompt="dog"), ask(5)]
    assert [[r.seed for r in batch.requests] for batch in batches(on(*mixed), (), 4)] == [[1, 5], [2], [3], [4]]


def test_a_batch_has_the_given_size_and_the_last_one_the_rest() -> None:
    assert [len(batch.requests) for batch in batches(on(*map(ask, range(10))), (), 4)] == [4, 4, 2]


def test_an_image_that_one_private_concept_asks_for_is_private() -> None:
    found = batches(on(ask(1), ask(2), ask(2, concept="nude")), {"nude"}, 4)
    assert [(batch.private, [r.seed for r in batch.requests]) for batch in found] == [(False, [1]), (True, [2])]


def test_what_is_generated_with_and_without_membranes_is_one_batch_for_both() -> None:
    """Keep one batch: an image's last bits depend on it, and a shut membrane must be seen to change nothing."""
    found = batches([*on(ask(1), ask(2), ask(3)), (ask(2), False), (ask(4), False), (ask(1), False)], (), 4)
    assert [(batch.attached, [r.seed for r in batch.requests]) for batch in found] == [
        ((False, True), [1, 2]),
        ((True,), [3]),
        ((False,), [4]),
    ]


def test_large_images_come_in_small_batches() -> None:
    assert [batch_size((side, side)) for side in (8, 64, 96, 128, 512)] == [32, 8, 3, 2, 1]

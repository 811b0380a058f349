from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d, normalize

from publisher_emoji import vocabulary
from publisher_emoji.plugin import EmojiScorer
from publisher_emoji.scorer import EmojiClassifier
from publisher_emoji.training.artwork import load_artwork


@pytest.fixture(scope="module")
def generated() -> tuple[torch.Tensor, torch.Tensor]:
    """Some artwork of every style in [0, 1], and which object each image shows."""
    artwork = load_artwork(vocabulary())
    some = artwork.objects < 24
    return avg_pool2d(artwork.images[some], 2) / 2 + 0.5, artwork.objects[some]


@pytest.fixture(scope="module")
def features(generated: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return EmojiScorer().features(generated[0])


def test_each_image_has_one_vector_that_the_heads_read(
    scorer: EmojiClassifier, generated: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, _ = generated
    found = EmojiScorer().features(images[:3])
    assert (found.shape, found.dtype) == ((3, 768), torch.float32)
    objects, _ = scorer.probabilities(images[:3] * 2 - 1)
    with torch.no_grad():
        torch.testing.assert_close(scorer.net.object_head(found).softmax(1), objects)


def test_two_images_of_one_object_are_more_alike_than_of_two_objects(
    features: torch.Tensor, generated: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Compare real artwork of 24 objects in six styles: for every object, and by a clear margin on average."""
    objects = generated[1]
    cosines = normalize(features) @ normalize(features).T
    same = objects[:, None] == objects[None]
    other = ~torch.eye(len(cosines), dtype=torch.bool)
    assert cosines[same & other].mean() > cosines[~same].mean() + 0.2
    for one in objects.unique():
        rows = objects == one
        assert cosines[rows][(same & other)[rows]].mean() > cosines[rows][~same[rows]].mean(), int(one)


def test_no_feature_is_negative(features: torch.Tensor) -> None:
    assert features.min() == 0
    assert torch.isfinite(features).all()


def test_a_vector_depends_on_its_own_image_alone(
    features: torch.Tensor, generated: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.testing.assert_close(EmojiScorer().features(generated[0][7:8]), features[7:8])
    assert torch.equal(EmojiScorer().features(generated[0][:9]), EmojiScorer().features(generated[0][:9]))


def test_nan_has_no_features() -> None:
    with pytest.raises(ValueError, match="NaN"):
        EmojiScorer().features(torch.full((1, 3, 32, 32), float("nan")))

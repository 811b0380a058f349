from __future__ import annotations

from pydantic import ConfigDict, Field

from publisher.api import Params


class Shape(Params):
    """A shape."""

    width: float = Field(default=1.0, description="Said by name.")
    """Below it."""
    height: float = Field(default=1.0, alias="tall")
    """In metres,
    from the ground."""
    depth: float = 1.0


class Named(Shape):
    model_config = ConfigDict(title="Named")

    width: float = 2.0
    inner: Shape = Shape()
    """Another one."""


def test_fields_are_described_by_the_text_below_them() -> None:
    properties = Named.model_json_schema()["properties"]
    found = {name: one.get("description") for name, one in properties.items()}
    assert found == {"width": None, "tall": "In metres,\nfrom the ground.", "depth": None, "inner": "Another one."}


def test_a_description_that_is_given_by_name_wins() -> None:
    assert Shape.model_json_schema()["properties"]["width"]["description"] == "Said by name."


def test_a_class_without_a_source_has_a_schema_without_texts() -> None:
    made: dict[int, type[Params]] = {}
    exec("class Made(Params):\n    size: int = 1\n    'Below it.'\nmade[0] = Made", {"Params": Params, "made": made})
    assert "description" not in made[0].model_json_schema()["properties"]["size"]

"""The membranes of a package at run time: read them, attach them to a pipeline."""

from publisher.runtime.attached import Attached, Scored, attach
from publisher.runtime.released import Released, read_release

__all__ = ["Attached", "Released", "Scored", "attach", "read_release"]

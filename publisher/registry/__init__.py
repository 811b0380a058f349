"""Which plugins are installed, what they contribute, and where it comes from."""

from __future__ import annotations

from publisher.registry.catalog import RegistryCatalog
from publisher.registry.load import load_registry
from publisher.registry.registry import Broken, Contribution, Registry

__all__ = ["Broken", "Contribution", "Registry", "RegistryCatalog", "load_registry"]

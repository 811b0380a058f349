"""Several hardened models of one base, side by side: what their reports and their evidence say of the same claims."""

from publisher.comparison.subjects import Subject, read_subject
from publisher.comparison.table import ModelComparison, compare

__all__ = ["ModelComparison", "Subject", "compare", "read_subject"]

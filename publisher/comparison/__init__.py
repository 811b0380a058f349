"""Several hardened models of one base, side by side: what their reports and their evidence say of the same claims."""

from publisher.comparison.non_inferiority import NonInferiority, lines_of, not_worse
from publisher.comparison.subjects import Subject, read_subject
from publisher.comparison.table import ModelComparison, compare

__all__ = ["ModelComparison", "NonInferiority", "Subject", "compare", "lines_of", "not_worse", "read_subject"]

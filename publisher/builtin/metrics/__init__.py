"""The metrics that come with the publisher. Each number has n, a 95% interval and the interval's method. No torch.

:mod:`publisher.api.intervals` makes the intervals; the modules here bring their numbers to it.
"""

from __future__ import annotations

from typing import Any

from publisher.api import Metric
from publisher.builtin.metrics.curves import CURVES
from publisher.builtin.metrics.delays import DELAYS
from publisher.builtin.metrics.distances import DISTANCES
from publisher.builtin.metrics.finds import FINDS
from publisher.builtin.metrics.gains import GAINS
from publisher.builtin.metrics.rates import RATES
from publisher.builtin.metrics.sets import SETS

METRICS: tuple[type[Metric[Any]], ...] = (*RATES, *DISTANCES, *SETS, *CURVES, *DELAYS, *GAINS, *FINDS)

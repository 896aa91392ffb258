# SPDX-License-Identifier: Apache-2.0
"""Is it any good? Metrics over the real examples, reports and forgetting."""

from jft.evals.evaluate import Evaluation, Interrupted, evaluate
from jft.evals.metrics import METRICS, check_metric_names, compute_metrics
from jft.evals.report import MetricLog, format_table, write_summary

__all__ = [
    "METRICS",
    "Evaluation",
    "Interrupted",
    "MetricLog",
    "check_metric_names",
    "compute_metrics",
    "evaluate",
    "format_table",
    "write_summary",
]

# SPDX-License-Identifier: Apache-2.0
"""Is it any good? Metrics over the real examples, forgetting, pictures, reports."""

from jft.evals.confusion import confusion_counts, plot_confusion
from jft.evals.evaluate import Evaluated, Rows, evaluate
from jft.evals.forgetting import (
    forgetting_report,
    put_head_back,
    set_head_aside,
    source_score,
)
from jft.evals.generate import Generated, generate
from jft.evals.metrics import METRICS, check_metric_names, compute_metrics
from jft.evals.plots import (
    layer_name,
    learning_rates,
    opening_names,
    plot_curves,
    plot_forgetting,
    plot_learning_rates,
)
from jft.evals.report import MetricLog, write_summary

__all__ = [
    "METRICS",
    "Evaluated",
    "Generated",
    "MetricLog",
    "Rows",
    "check_metric_names",
    "compute_metrics",
    "confusion_counts",
    "evaluate",
    "forgetting_report",
    "generate",
    "layer_name",
    "learning_rates",
    "opening_names",
    "plot_confusion",
    "plot_curves",
    "plot_forgetting",
    "plot_learning_rates",
    "put_head_back",
    "set_head_aside",
    "source_score",
    "write_summary",
]

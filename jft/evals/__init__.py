# SPDX-License-Identifier: Apache-2.0
"""Is it any good? Metrics over the real examples, forgetting, pictures, reports."""

from jft.evals.answer_metrics import ANSWER_METRICS
from jft.evals.classification_metrics import CLASSIFICATION_METRICS
from jft.evals.confusion import (
    plot_confusion,
)
from jft.evals.diagnosis import diagnose, weight_drift
from jft.evals.embedding_metrics import EMBEDDING_METRICS, probe_accuracy
from jft.evals.evaluate import Evaluated, Rows, evaluate
from jft.evals.forgetting import (
    forgetting_report,
    put_head_back,
    set_head_aside,
)
from jft.evals.generate import Generated, generate
from jft.evals.methods_plot import plot_methods
from jft.evals.multilabel_metrics import MULTILABEL_METRICS, class_f1s
from jft.evals.plots import (
    learning_rates,
    opening_names,
    plot_curves,
    plot_forgetting,
    plot_learning_rates,
)
from jft.evals.regression_metrics import REGRESSION_METRICS
from jft.evals.report import MetricLog, write_summary
from jft.evals.scoring import Metric, MetricFn, check_metric_names, compute_scores
from jft.evals.tagging_metrics import TAGGING_METRICS, entity_f1s
from jft.evals.task_plots import plot_class_f1s, plot_lengths, plot_regression
from jft.evals.text_metrics import TEXT_METRICS, perplexity
from jft.evals.wise_ft import ScoreFn, plot_wise_ft, wise_ft_curve

__all__ = [
    "ANSWER_METRICS",
    "CLASSIFICATION_METRICS",
    "EMBEDDING_METRICS",
    "MULTILABEL_METRICS",
    "REGRESSION_METRICS",
    "TAGGING_METRICS",
    "TEXT_METRICS",
    "Evaluated",
    "Generated",
    "Metric",
    "MetricFn",
    "MetricLog",
    "Rows",
    "ScoreFn",
    "check_metric_names",
    "class_f1s",
    "compute_scores",
    "diagnose",
    "entity_f1s",
    "evaluate",
    "forgetting_report",
    "generate",
    "learning_rates",
    "opening_names",
    "perplexity",
    "plot_class_f1s",
    "plot_confusion",
    "plot_curves",
    "plot_forgetting",
    "plot_learning_rates",
    "plot_lengths",
    "plot_methods",
    "plot_regression",
    "plot_wise_ft",
    "probe_accuracy",
    "put_head_back",
    "set_head_aside",
    "weight_drift",
    "wise_ft_curve",
    "write_summary",
]

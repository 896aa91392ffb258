# SPDX-License-Identifier: Apache-2.0
"""Scores of embeddings: similarity of pairs, and what a linear probe learns from them.

Similarities are scored as numbers, ``targets [N]`` against ``cosines [N]`` (those of
`jft.train.cosine_similarity`), as the benchmarks of textual similarity do.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from jft.evals.regression_metrics import pearson, spearman
from jft.evals.scoring import Metric, MetricFn
from jft.types import InputError

EMBEDDING_METRICS: Mapping[str, MetricFn] = {
    "pearson": Metric(pearson),
    "spearman": Metric(spearman),
}


def probe_accuracy(
    train_embeddings: Float[np.ndarray, "M D"],
    train_targets: Int[np.ndarray, " M"],
    embeddings: Float[np.ndarray, "N D"],
    targets: Int[np.ndarray, " N"],
) -> float:
    """Accuracy of scikit-learn's logistic regression on frozen embeddings.

    What SetFit classifies with after its embeddings are trained (Tunstall et al. 2022,
    https://arxiv.org/abs/2209.11055).

    Args:
      train_embeddings: of the examples that the regression learns from.
      train_targets: their class ids.
      embeddings: of the examples that are scored.
      targets: their class ids.

    Returns:
      The share that is right; NaN without any, or for embeddings that are not finite.

    Raises:
      InputError: if the training examples are not of two classes or more.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(train_targets)) < 2:
        raise InputError(
            "a probe needs training examples of at least two classes, but was given "
            f"{len(train_targets)} of {np.unique(train_targets).tolist()}."
        )
    finite = all(np.isfinite(x).all() for x in (train_embeddings, embeddings))
    if not finite or not len(targets):
        return float("nan")
    probe = LogisticRegression(max_iter=1000).fit(train_embeddings, train_targets)
    return float(probe.score(embeddings, targets))

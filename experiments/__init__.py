# SPDX-License-Identifier: Apache-2.0
"""Scripts, each read top to bottom in stage order; run as ``python -m``.

``finetune`` is the one to read first. ``pretrain`` and ``sweep`` run it; ``evaluate``,
``predict``, ``export``, ``interpolate`` and ``soup`` read what it leaves; ``probe``,
``forgetting`` and ``benchmark`` compare. What a run is made of, in the order of its
stages:

==========  ===========================================================================
config      ``run_config``: read, completed, checked
data        ``dataset``: rows and splits; ``feed``: tokens and batches; ``data_report``
models      ``models``: what it starts from; ``adapter``: what is added
partition,  ``optimizer``: which numbers move and how; ``plan``: when, in steps;
optim       ``anchors``: what holds them to their start
train       ``build``: all of the above, a job; ``devices``: where it is computed;
            ``forward``: how the model runs; ``objective``: what is minimised;
            ``training``: the state and the step; ``activations``: of frozen layers,
            kept; ``loop``: many steps, and hooks
checkpoint  ``keep``: saved, resumed, the best one; ``records``: what was measured when
evals       ``judge``: scores; ``writing``: texts; ``source_task``, ``two_heads``: what
            the model could do before
export      ``exported``: the folder; ``plots``; ``outputs``: the summary
==========  ===========================================================================
"""

from experiments import huge_pages

huge_pages.restart()  # before anything is imported that takes its time

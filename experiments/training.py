# SPDX-License-Identifier: Apache-2.0
"""What the loop works with: the state on its devices, the step, and its memory."""

from collections.abc import Callable

from experiments import anchors, objective, two_heads
from experiments.build import Job
from experiments.devices import compute_dtype, make_mesh, make_place
from experiments.plan import largest_groups
from jft import optim, train
from jft.types import Batch


def make_place_for_step(job: Job) -> Callable[[Batch], Batch]:
    """Place a batch of the task, with what a teacher says of it."""
    return objective.add_teacher(job.config, job.model, make_place(job.config))


def place_state(job: Job) -> tuple[train.TrainState, train.TrainState]:
    """The state at step 0 on the devices of the mesh, and where its leaves lie."""
    state = init_state(job)
    shardings = train.state_shardings(
        state, make_mesh(job.config), tensor_rules=job.model.family.tensor_rules
    )
    return train.place_state(state, shardings), shardings


def init_state(job: Job) -> train.TrainState:
    """The state at step 0."""
    return train.init_state(
        job.model.params,
        job.labels,
        tx=job.tx,
        key=job.key,
        frozen_dtype=compute_dtype(job.config),
    )


def with_fisher(job: Job, state: train.TrainState) -> train.TrainState:
    """Tell the optimizer how much the source task needs each parameter; of EWC."""
    assert job.source is not None
    key = "optim.ewc.strength"
    anchored = anchors.anchored_paths(job.model, job.labels, key=key)
    fisher = anchors.source_fisher(job.config, job.source, anchored)
    return state._replace(opt_state=optim.with_fisher(state.opt_state, fisher))


def make_train_step(
    job: Job, *, state_shardings: train.TrainState | None
) -> train.TrainStep:
    """The step of the task, which asks the old head where the groups want that."""
    config, model = job.config, job.model
    alone = objective.make_parts(config, model, job.splits["train"])
    both = two_heads.add_old_head(config, alone, model, old=job.old, source=job.source)
    steps = {
        asks: train.make_train_step(
            parts.apply_fn,
            parts.loss_fn,
            job.tx,
            job.labels,
            group_of=model.layer_index,
            grad_accum_steps=config.train.grad_accum_steps,
            compute_dtype=compute_dtype(config),
            metric_fns=parts.metric_fns,
            prefix_fn=parts.prefix_fn,
            chunks=parts.chunks,
            mixout=config.train.mixout,
            state_shardings=state_shardings,
        )
        for asks, parts in ((False, alone), (True, both))
    }
    if not two_heads.asks_old_head(config):
        return steps[False]
    return train.choose_step(
        lambda groups: steps[job.asks(groups)], group_of=model.layer_index
    )


def plan_memory(
    job: Job,
    train_step: train.TrainStep,
    state: train.TrainState,
    place: Callable[[Batch], Batch],
) -> train.MemoryPlan:
    """Compile the largest step, that of the last phase and the longest batch.

    Raises:
      InputError: if it does not fit a device.
    """
    batch = place(job.loader.largest())
    groups = largest_groups(job.config, job.plan)
    program = train_step.compile(state, batch, open_groups=groups)
    plan = train.plan_memory(program, state, batch)
    train.check_memory(plan, train.device_bytes())
    return plan

# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model: config in, a better checkpoint out, in stage order.

    python -m experiments.finetune --config=configs/digits.py

Any key of the config can be overridden: ``--config.optim.learning_rate=1e-3``. The
same command with the same ``--workdir`` goes on where it stopped. Ctrl-C and SIGTERM
save first; the exit status is then 75.
"""

import functools
import time

import jax

from experiments import build, judge, keep, outputs
from jft import checkpoint, evals, partition, train
from jft.config import Config, Invocation, Workdir, config_digest, open_workdir, run
from jft.tasks import get_task
from jft.types import Interrupted


def main(invocation: Invocation) -> int:
    """Run, go on, or say that the run is finished."""
    config = invocation.config
    build.check_config(config)
    folder = open_workdir(
        invocation.workdir, config_name=invocation.config_name, config=config
    )
    with folder as workdir, checkpoint.StopSignal() as stop:
        if workdir.summary_file.exists():
            print(f"{workdir.path} is finished; give another --workdir to run again.")
        else:
            try:
                finetune(config, workdir, stop)
            except Interrupted as reason:
                raise Interrupted(
                    f"{reason}; the same command with --workdir={workdir.path} goes on "
                    "from there."
                ) from None
    return 0


def finetune(config: Config, workdir: Workdir, stop: checkpoint.StopSignal) -> None:
    """Run every stage, from the data to the exported folder."""
    began = time.perf_counter()
    key_model, key_train = jax.random.split(jax.random.key(config.seed))

    # data → models → params
    splits = build.load_splits(config.data)
    model = build.load_model(config.model, splits["train"].class_names, key=key_model)
    loader = build.make_train_loader(config, splits["train"], model)

    # partition → optim
    labels = build.label_params(config, model)
    plan = build.make_plan(config, model, labels, loader.steps_per_epoch)
    tx = build.make_optimizer(config.optim, model, labels, plan)
    multiplier = build.make_multiplier(config.optim, model, labels)
    table = partition.describe(
        model.params,
        labels,
        layer_index=model.layer_index,
        multiplier=multiplier,
        open_at=plan.open_at,
    )
    print(table, flush=True)

    # train: the state on its devices, and the step
    mesh, dtype = build.make_mesh(config), build.compute_dtype(config)
    state = train.init_state(
        model.params, labels, tx=tx, key=key_train, frozen_dtype=dtype
    )
    shardings = train.state_shardings(state, mesh)
    state = train.place_state(state, shardings)
    task = get_task(build.TASK)
    train_step = train.make_train_step(
        model.apply_fn,
        task.make_loss(config.train.label_smoothing),
        tx,
        labels,
        group_of=model.layer_index,
        grad_accum_steps=config.train.grad_accum_steps,
        compute_dtype=dtype,
        metric_fns=task.train_metrics,
        state_shardings=shardings,
    )
    place = functools.partial(train.shard_batch, mesh=mesh)
    stream = build.Stream(loader, place)
    make_evaluator = functools.partial(
        judge.Evaluator, config, place=place, stop_requested=lambda: stop.requested
    )
    evaluate = make_evaluator(model)
    source = judge.load_source_task(config, make_evaluator)

    # checkpoint: go on where the last run stopped
    manifest = keep.make_manifest(
        config, model, labels, config_digest=config_digest(config)
    )
    with (
        keep.make_checkpoints(config, workdir.checkpoints, plan) as checkpoints,
        evals.MetricLog(workdir.path) as log,
    ):
        state, history = keep.resume(config, checkpoints, manifest, state, loader)
        log.rewrite(history)
        record = functools.partial(outputs.record, log=log)
        save = keep.make_save(
            config, checkpoints, manifest, loader, plan, state=state, history=history
        )
        if source and not history:
            record(history, source.record(0, model.params))

        # train: many steps
        groups_at = build.open_groups_at(config, plan)
        bar = train.ProgressBar(
            examples_per_step=config.data.global_batch_size, metric=config.evals.metric
        )
        hooks = judge.make_hooks(
            config,
            plan,
            record=record,
            save=save,
            evaluate=lambda s: (
                evaluate(keep.eval_params(s), splits["validation"]).scores
            ),
            source=source,
            last_good=lambda: f"{checkpoints.latest_step()} in {checkpoints.directory}",
        )
        with bar:
            result = train.fit(
                state,
                train_step,
                batches=stream,
                num_steps=plan.num_steps,
                open_groups_at=groups_at,
                hooks=[*hooks, bar],
                history=history,
                stop_requested=lambda: stop.requested,
            )
        stream.close()
        save(result.state, result.history)
        checkpoints.wait()
        if result.stopped == "interrupted":
            raise Interrupted(
                f"saved step {int(result.state.step)} of {plan.num_steps} in "
                f"{checkpoints.directory}"
            )

        best = keep.restore_best(config, checkpoints, manifest, result.state)

    # evals: the best checkpoint on the test split, and what was forgotten
    params = partition.combine(keep.eval_params(best), model.params)
    test = evaluate(params, splits["test"])
    forgetting = source and source.report(result.history, params)

    # export: a Hugging Face folder, pictures, and the figures of the run
    if config.export.enabled:
        outputs.write_export(workdir.export, config, model, params, test.scores)
    outputs.write_plots(
        workdir.plots,
        config,
        model,
        labels,
        phases=outputs.phases_of(
            groups_at,
            result.history,
            num_steps=int(result.state.step),
            layers=range(model.num_layers + 2),
        ),
        schedule=plan.schedule,
        multiplier=multiplier,
        history=result.history,
        test=test,
        best_step=int(best.step),
    )
    summary = outputs.summarize(
        config,
        labels,
        params,
        result=result,
        test=test,
        best=train.best_record(
            result.history, config.evals.metric, mode=config.evals.mode
        ),
        forgetting=forgetting,
        seconds={
            "total": time.perf_counter() - began,
            "compile": sum(phase.compile_seconds for phase in result.phases),
            "train": sum(phase.seconds for phase in result.phases) - evaluate.seconds,
            "evaluate": evaluate.seconds,
            "data_wait": stream.wait_seconds,
        },
    )
    evals.write_summary(workdir.summary_file, summary)
    print(outputs.closing_table(summary, workdir))


if __name__ == "__main__":
    run(main)

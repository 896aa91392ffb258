# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model: config in, a better checkpoint out, in stage order.

    python -m experiments.finetune --config=configs/digits.py

Any key of the config can be overridden: ``--config.optim.learning_rate=1e-3``. The
same command with the same ``--workdir`` goes on where it stopped. Ctrl-C and SIGTERM
save first; the exit status is then 75.

With ``--distributed`` it is one of several processes, which share the workdir: all run
this file from top to bottom, and the main one alone writes and prints.
"""

import functools
import time

from experiments import (
    activations,
    build,
    feed,
    judge,
    keep,
    objective,
    outputs,
    two_heads,
)
from jft import checkpoint, evals, partition, processes, train
from jft.config import Config, Invocation, Workdir, open_workdir, run
from jft.types import Interrupted


def main(invocation: Invocation) -> int:
    """Run, go on, or say that the run is finished."""
    config = build.complete(invocation.config)
    train.keep_compiled()
    folder = open_workdir(
        invocation.workdir, config_name=invocation.config_name, config=config
    )
    with folder as workdir, checkpoint.StopSignal() as stop:
        if processes.from_main(workdir.summary_file.exists):
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

    # data → models → params → partition → optim
    job = processes.together(lambda: build.make_job(config))
    manifest = keep.make_manifest(job)
    keep.check_alike(job, manifest)
    facts = feed.report(config.data, job.splits, job.tables)
    print(feed.describe(facts), build.describe(job), sep="\n\n", flush=True)

    # train: the state on its devices, and what is done with it
    mesh = build.make_mesh(config)
    place = functools.partial(train.shard_batch, mesh=mesh)
    state = build.init_state(job)
    shardings = train.state_shardings(
        state, mesh, tensor_rules=job.model.family.tensor_rules
    )
    state = train.place_state(state, shardings)
    train_step = build.make_train_step(job, state_shardings=shardings)
    feeding = objective.add_teacher(config, job.model, place)
    asking = two_heads.add_old_answers(config, job.old, feeding)
    before = time.perf_counter()
    memory = build.plan_memory(job, train_step, state, asking)
    planning_seconds = time.perf_counter() - before
    print(f"\n{train.describe_memory(memory, train.device_bytes())}\n", flush=True)
    stream = feed.Stream(job.loader, asking)
    kept = activations.Activations(
        job,
        stream,
        place=place,
        feeding=feeding,
        folder=workdir.activations,
        stop_requested=stop.poll,
    )
    make_evaluator = functools.partial(
        judge.Evaluator, place=place, stop_requested=stop.poll
    )
    evaluate = make_evaluator(config, job.model)
    source = job.source and judge.Forgetting(job.source, make_evaluator)

    def evaluating_seconds() -> float:
        return evaluate.seconds + (source.seconds if source else 0.0)

    with (
        keep.make_checkpoints(job, workdir.checkpoints) as checkpoints,
        outputs.open_log(workdir) as log,
    ):
        # checkpoint: go on where the last run stopped
        state, history = keep.resume(job, checkpoints, manifest=manifest, state=state)
        if log is not None:
            log.rewrite(history)
        record = functools.partial(outputs.record, log=log)
        save = keep.make_save(
            job, checkpoints, manifest=manifest, state=state, history=history
        )
        if config.optim.ewc.strength and not history:
            state = build.with_fisher(job, state)
        if source and not history:
            record(history, source.record(0, job.model.params))

        # train: many steps
        hooks = judge.make_hooks(
            job,
            record=record,
            save=save,
            evaluate=lambda state: (
                evaluate(
                    keep.eval_params(state),
                    job.tables["validation"],
                    kept=kept.table("validation"),
                ).scores
            ),
            source=source,
            last_good=lambda: f"{checkpoints.latest_step()} in {checkpoints.directory}",
        )
        evaluated_before = evaluating_seconds()
        with train.ProgressBar(
            examples_per_step=config.data.global_batch_size,
            metric=config.evals.metric,
            enabled=processes.is_main(),
        ) as bar:
            result = train.fit(
                state,
                train_step,
                batches=stream,
                num_steps=job.plan.num_steps,
                open_groups_at=build.open_groups_at(job),
                start_phase=kept.start_phase,
                hooks=[*hooks, bar],
                history=history,
                stop_requested=stop.poll,
            )
        stream.close()
        save(result.state, result.history)
        checkpoints.wait()
        if result.stopped == "interrupted":
            raise Interrupted(
                f"saved step {int(result.state.step)} of {job.plan.num_steps} in "
                f"{checkpoints.directory}"
            )
        kept.close()
        best = keep.restore_best(
            job, checkpoints, manifest=manifest, state=result.state
        )

    # evals: the best checkpoint on the test split, and what was forgotten
    evaluate_in_fit = evaluating_seconds() - evaluated_before
    params = keep.eval_params(best)
    test = evaluate(params, job.tables["test"])
    forgetting = source and source.report(result.history, params)

    # export: a Hugging Face folder, pictures, and the figures of the run
    trained = processes.whole_tree(keep.trained_params(best))
    exported = partition.combine(trained, job.model.params)
    if config.export.enabled:
        processes.from_main(
            lambda: outputs.write_export(workdir.export, job, exported, test.scores)
        )
    best_step = int(best.step)
    processes.from_main(
        lambda: outputs.write_plots(
            workdir.plots, job, result, test=test, best_step=best_step
        )
    )
    in_phases = sum(phase.seconds for phase in result.phases)
    seconds = {
        "total": time.perf_counter() - began,
        "compile": planning_seconds
        + sum(phase.compile_seconds for phase in result.phases),
        "train": in_phases - evaluate_in_fit,
        "evaluate": evaluating_seconds(),
        "data_wait": stream.wait_seconds,
    }
    summary = outputs.summarize(
        job,
        result,
        test=test,
        forgetting=forgetting,
        warnings=outputs.warn(job, result.history, exported),
        facts=facts,
        cache=kept.report(int(result.state.step)),
        memory=memory._asdict() | {"total": memory.total},
        eval_programs=evaluate.num_programs,
        seconds=seconds,
    )
    processes.from_main(lambda: evals.write_summary(workdir.summary_file, summary))
    print(outputs.closing_table(summary, workdir))


if __name__ == "__main__":
    run(main)

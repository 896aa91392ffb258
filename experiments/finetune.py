# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model: config in, a better checkpoint out, in stage order.

    python -m experiments.finetune --config=configs/digits.py

Any key of the config can be overridden: ``--config.optim.learning_rate=1e-3``. The
same command with the same ``--workdir`` goes on where it stopped. Ctrl-C and SIGTERM
save first; the exit status is then 75.

With ``--distributed`` it is one of several processes, which share the workdir: all run
this file from top to bottom, and the main one alone writes and prints.
"""

import time

from experiments import (
    build,
    data_report,
    exported,
    judge,
    keep,
    loop,
    outputs,
    plots,
    records,
    run_config,
)
from jft import checkpoint, evals, processes, train
from jft.config import Config, Invocation, Workdir, open_workdir, run
from jft.types import Interrupted


def main(invocation: Invocation) -> int:
    """Run, go on, or say that the run is finished."""
    config = run_config.complete(invocation.config)
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

    # data → models → params → partition → optim: what is fixed before the first step
    job = build.make_job(config)
    checkpoints = keep.RunCheckpoints(job, workdir.checkpoints)
    checkpoints.check_alike()
    facts = data_report.make_report(config.data, job.splits, job.tables)
    print(data_report.describe(facts), build.describe(job), sep="\n\n", flush=True)

    # train → checkpoint: go on where the last run stopped, then take the best step
    running, state = loop.make_run(job, stop, activations=workdir.activations)
    with checkpoints:
        state, history = checkpoints.resume(state)
        with records.Records(workdir, history) as recorded:
            state = loop.begin(running, state, history, recorded)
            result = loop.train_steps(running, state, history, recorded, checkpoints)
        best = checkpoints.restore_best(result.state)

    # evals: the test split, and what was forgotten
    judged = judge.eval_params(best)
    test = running.judges.test(judged)
    forgetting = running.judges.report_forgetting(result.history, judged)

    # export: a Hugging Face folder, pictures, and the figures of the run
    params = processes.whole_tree(keep.trained_params(job, best))
    if config.export.enabled:
        exported.write_export(workdir.export, job, params, test.scores)
    plots.write_plots(workdir.plots, job, result, test, best_step=int(best.step))
    summary = outputs.summarize(
        running,
        result,
        params,
        test=test,
        forgetting=forgetting,
        facts=facts,
        seconds=time.perf_counter() - began,
    )
    processes.from_main(lambda: evals.write_summary(workdir.summary_file, summary))
    print(outputs.closing_table(summary, workdir))


if __name__ == "__main__":
    run(main)

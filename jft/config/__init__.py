# SPDX-License-Identifier: Apache-2.0
"""What was asked for? Config files, overrides and flags become one frozen ``Config``.

The only stage that imports ml_collections; library functions never see a config.
"""

from jft.config.args import parse_arg
from jft.config.convert import convert, converts
from jft.config.durations import Duration, to_steps
from jft.config.files import load_config_file, make_config_dict, set_duration
from jft.config.flags import (
    EXIT_INPUT,
    Invocation,
    define_process_flags,
    new_flags,
    run,
    run_without_config,
)
from jft.config.kinds import Range
from jft.config.overrides import apply_overrides, read_overrides
from jft.config.resolve import (
    config_digest,
    differences,
    from_json,
    resolve,
    to_dict,
    to_json,
)
from jft.config.schema import (
    AdapterConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SourceConfig,
    TrainConfig,
)
from jft.config.workdir import Workdir, open_workdir, read_config

__all__ = [
    "EXIT_INPUT",
    "AdapterConfig",
    "Config",
    "DataConfig",
    "Duration",
    "Invocation",
    "ModelConfig",
    "OptimConfig",
    "Range",
    "SourceConfig",
    "TrainConfig",
    "Workdir",
    "apply_overrides",
    "config_digest",
    "convert",
    "converts",
    "define_process_flags",
    "differences",
    "from_json",
    "load_config_file",
    "make_config_dict",
    "new_flags",
    "open_workdir",
    "parse_arg",
    "read_config",
    "read_overrides",
    "resolve",
    "run",
    "run_without_config",
    "set_duration",
    "to_dict",
    "to_json",
    "to_steps",
]

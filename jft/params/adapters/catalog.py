# SPDX-License-Identifier: Apache-2.0
"""Every method, by its name in a config."""

from collections.abc import Mapping

from jft.params.adapters.adapter import Adapter
from jft.params.adapters.bottleneck import Bottleneck
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import Lora
from jft.params.adapters.prefix import PrefixTuning
from jft.params.adapters.prompt import PromptTuning
from jft.params.adapters.tuning import BitFit, NormTuning
from jft.params.adapters.vera import Vera

ADAPTERS: Mapping[str, type[Adapter]] = {
    "bitfit": BitFit,
    "bottleneck": Bottleneck,
    "ia3": Ia3,
    "lora": Lora,
    "norm": NormTuning,
    "prefix": PrefixTuning,
    "prompt": PromptTuning,
    "vera": Vera,
}

# SPDX-License-Identifier: Apache-2.0
"""Parameter-efficient fine-tuning: what is added beside a base that stays as it is."""

from collections.abc import Mapping

from jft.params.adapters.adapter import SUBTREE, Adapter, Product
from jft.params.adapters.forward import AdaptedModule
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import Lora
from jft.params.adapters.peft_config import from_peft_config, to_peft_config
from jft.params.adapters.peft_folder import read_adapter
from jft.params.adapters.peft_names import Names, make_names
from jft.params.adapters.peft_prompts import to_peft_prompt
from jft.params.adapters.peft_tensors import to_tensors
from jft.params.adapters.prefix import PrefixTuning
from jft.params.adapters.products import find_products
from jft.params.adapters.prompt import PromptTuning
from jft.params.adapters.targets import (
    ALL_LINEAR,
    check_also_train,
    choose_targets,
)
from jft.params.adapters.tree import (
    adapted_family,
    adapted_layer_index,
    adapters_of,
    check_foldable,
    fold,
    head_rules,
    label_adapted,
    modules_of,
    with_adapters,
    without_adapters,
)
from jft.params.adapters.tuning import BitFit, NormTuning

ADAPTERS: Mapping[str, type[Adapter]] = {
    "bitfit": BitFit,
    "ia3": Ia3,
    "lora": Lora,
    "norm": NormTuning,
    "prefix": PrefixTuning,
    "prompt": PromptTuning,
}

__all__ = [
    "ADAPTERS",
    "ALL_LINEAR",
    "SUBTREE",
    "AdaptedModule",
    "Adapter",
    "BitFit",
    "Ia3",
    "Lora",
    "Names",
    "NormTuning",
    "PrefixTuning",
    "Product",
    "PromptTuning",
    "adapted_family",
    "adapted_layer_index",
    "adapters_of",
    "check_also_train",
    "check_foldable",
    "choose_targets",
    "find_products",
    "fold",
    "from_peft_config",
    "head_rules",
    "label_adapted",
    "make_names",
    "modules_of",
    "read_adapter",
    "to_peft_config",
    "to_peft_prompt",
    "to_tensors",
    "with_adapters",
    "without_adapters",
]

# SPDX-License-Identifier: Apache-2.0
"""Parameter-efficient fine-tuning: what is added beside a base that stays as it is."""

from jft.params.adapters.adapter import SUBTREE, Adapter, Product
from jft.params.adapters.base_digest import BaseDigest, make_base_digest
from jft.params.adapters.bottleneck import Bottleneck
from jft.params.adapters.catalog import ADAPTERS
from jft.params.adapters.forward import AdaptedModule
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import Lora
from jft.params.adapters.members import Member, member_of
from jft.params.adapters.mixed import BASE, Mixed, mix
from jft.params.adapters.peft_config import to_peft_config
from jft.params.adapters.peft_folder import check_base, read_adapter, read_head
from jft.params.adapters.peft_names import TASK_TYPES, Names, make_names
from jft.params.adapters.peft_prompts import to_peft_prompt
from jft.params.adapters.peft_tensors import to_tensors
from jft.params.adapters.prefix import PrefixTuning
from jft.params.adapters.products import find_products, rows_of_calls
from jft.params.adapters.prompt import PromptTuning
from jft.params.adapters.targets import (
    ALL_LINEAR,
    Targeted,
    check_also_train,
    choose_targets,
)
from jft.params.adapters.tree import (
    adapted_family,
    adapted_layer_index,
    adapters_of,
    check_foldable,
    fold,
    head_paths,
    head_rules,
    label_adapted,
    modules_of,
    norms_of,
    shared_of,
    with_adapters,
    without_adapters,
)
from jft.params.adapters.tuning import BitFit, NormTuning
from jft.params.adapters.vera import Vera
from jft.params.adapters.virtual_tokens import VirtualTokens
from jft.params.adapters.weighted import Term, sum_adapters, sum_own

__all__ = [
    "ADAPTERS",
    "ALL_LINEAR",
    "BASE",
    "SUBTREE",
    "TASK_TYPES",
    "AdaptedModule",
    "Adapter",
    "BaseDigest",
    "BitFit",
    "Bottleneck",
    "Ia3",
    "Lora",
    "Member",
    "Mixed",
    "Names",
    "NormTuning",
    "PrefixTuning",
    "Product",
    "PromptTuning",
    "Targeted",
    "Term",
    "Vera",
    "VirtualTokens",
    "adapted_family",
    "adapted_layer_index",
    "adapters_of",
    "check_also_train",
    "check_base",
    "check_foldable",
    "choose_targets",
    "find_products",
    "fold",
    "head_paths",
    "head_rules",
    "label_adapted",
    "make_base_digest",
    "make_names",
    "member_of",
    "mix",
    "modules_of",
    "norms_of",
    "read_adapter",
    "read_head",
    "rows_of_calls",
    "shared_of",
    "sum_adapters",
    "sum_own",
    "to_peft_config",
    "to_peft_prompt",
    "to_tensors",
    "with_adapters",
    "without_adapters",
]

"""HRM ACT v1 for transformers, registered with the Auto classes on import; no optimizer, no data, no state of a run.

Imports torch and transformers; the plain preset numbers are in `aios.core.architecture`.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM

from aios.core.hrm_models.cache import CACHE_NAME, HRMCache
from aios.core.hrm_models.configuration_hrm import HRMConfig
from aios.core.hrm_models.from_folder import load_model, read_config
from aios.core.hrm_models.modeling_hrm import HRMForCausalLM
from aios.core.hrm_models.supervision import HRMOutput

AutoConfig.register(HRMConfig.model_type, HRMConfig, exist_ok=True)
AutoModelForCausalLM.register(HRMConfig, HRMForCausalLM, exist_ok=True)

__all__ = ["CACHE_NAME", "HRMCache", "HRMConfig", "HRMForCausalLM", "HRMOutput", "load_model", "read_config"]

# SPDX-License-Identifier: Apache-2.0
"""jft: pure-functional fine-tuning of Hugging Face checkpoints in JAX and Flax."""

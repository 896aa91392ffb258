# SPDX-License-Identifier: Apache-2.0
"""From examples to what a model reads: tokens, pixels, targets."""

# SPDX-License-Identifier: Apache-2.0
"""From fields to batches: the table of tokens, lengths, packing and the loaders."""

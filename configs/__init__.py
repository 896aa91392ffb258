# SPDX-License-Identifier: Apache-2.0
"""One file an experiment; ``common`` has every key with its meaning."""

# SPDX-License-Identifier: Apache-2.0
"""The suites of `experiments.benchmark`, a file each."""

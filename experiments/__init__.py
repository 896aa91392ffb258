# SPDX-License-Identifier: Apache-2.0
"""Scripts, each read top to bottom in stage order; run as ``python -m``."""

# SPDX-License-Identifier: Apache-2.0
"""Scripts, each read top to bottom in stage order; run as ``python -m``."""

from experiments import huge_pages

huge_pages.restart()  # before anything is imported that takes its time

# SPDX-License-Identifier: Apache-2.0
"""Checked rows with their targets as numbers, and the splits that they are in."""

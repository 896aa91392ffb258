# SPDX-License-Identifier: Apache-2.0
"""Raw rows: every kind of file and data set, by position and column."""

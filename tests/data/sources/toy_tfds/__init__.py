# SPDX-License-Identifier: Apache-2.0
"""A data set as TensorFlow Datasets wants one: a package with one builder module."""

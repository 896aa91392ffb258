# SPDX-License-Identifier: Apache-2.0
"""Scripts whose memory comes in huge pages, where Linux gives them to who asks.

A compiled program on the CPU asks for its temporary arrays anew in each run, hundreds
of megabytes at once. Pages of 4 kB are zeroed and mapped one by one: a seventh of a
small model's training step. glibc asks for huge pages only if its environment says so
when the process starts, so a script starts itself once more.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SETTING = "glibc.malloc.hugetlb"  # of GLIBC_TUNABLES, from glibc 2.35 on
MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart(
    command: Sequence[str] = tuple(sys.orig_argv),
    environment: Mapping[str, str] = os.environ,
    mode: Path = MODE,
) -> None:
    """Start ``python -m experiments.…`` again with huge pages; else do nothing.

    Nothing happens either where the environment has the setting, such as
    ``GLIBC_TUNABLES=glibc.malloc.hugetlb=0``, and where Linux gives huge pages to all
    processes or to none.
    """
    is_script = list(command[1:2]) == ["-m"] and command[2].startswith("experiments.")
    tunables = environment.get("GLIBC_TUNABLES", "")
    if not is_script or SETTING in tunables or not _given_if_asked(mode):
        return
    with_setting = ":".join(filter(None, (tunables, f"{SETTING}=1")))
    environment = {**environment, "GLIBC_TUNABLES": with_setting}
    os.execve(sys.executable, list(command), environment)


def _given_if_asked(mode: Path) -> bool:
    try:
        return "[madvise]" in mode.read_text()
    except OSError:  # not Linux, or without huge pages
        return False

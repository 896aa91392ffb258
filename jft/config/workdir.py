# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: made or resumed, never shared, never another config's."""

import fcntl
import os
import secrets
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

import jax

from jft import processes
from jft.config.resolve import MAY_CHANGE, differences, from_json, to_json
from jft.config.schema import Config
from jft.files import write_text
from jft.types import InputError

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
SHARED_SECONDS = 20  # within which what one host writes is seen by the others


@dataclass(frozen=True, kw_only=True)
class Workdir:
    """A run's folder, locked until ``close`` or the end of the process.

    Of several processes the main one holds the lock.
    """

    path: Path
    resumed: bool  # whether the folder already belonged to this config
    lock: IO[str] | None

    @property
    def config_file(self) -> Path:
        """The config as JSON."""
        return self.path / CONFIG_FILE

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def activations(self) -> Path:
        """Folder of what frozen layers say of each row, while the run lasts."""
        return self.path / "activations"

    @property
    def export(self) -> Path:
        """The Hugging Face folder."""
        return self.path / "export"

    @property
    def plots(self) -> Path:
        """Folder of the pictures."""
        return self.path / "plots"

    @property
    def summary_file(self) -> Path:
        """The figures of the finished run; absent while it is not finished."""
        return self.path / "summary.json"

    def close(self) -> None:
        """Let other processes have the folder."""
        if self.lock is not None:
            self.lock.close()

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_workdir(
    path: str | os.PathLike[str] | None,
    *,
    config_name: str,
    config: Config,
) -> Workdir:
    """Make a run's folder, or open the one that this config began. Collective.

    The main process does so for all, and the others must see what it has written.

    Args:
      path: the folder; None makes a new ``runs/<config_name>/<time>``.
      config_name: the config file's name, for the default path.
      config: written to ``config.json``; a run's folder must have the same,
        apart from the keys in ``MAY_CHANGE``, which are updated.

    Returns:
      The folder, locked against other processes.

    Raises:
      InputError: if the folder belongs to another config or to something else, is in
        use by another process, cannot be written, or is not shared by all processes.
    """
    claimed: list[Workdir] = []  # in the main process

    def claim() -> tuple[Workdir, Path]:
        claimed.append(_claim(path, config_name, config))
        return replace(claimed[0], lock=None), claimed[0].path.absolute()

    told, absolute = processes.from_main(claim)
    workdir = claimed[0] if claimed else replace(told, path=absolute)
    if jax.process_count() > 1:
        try:
            _check_shared(absolute, workdir.lock)
        except BaseException:
            workdir.close()
            raise
    return workdir


def _claim(
    path: str | os.PathLike[str] | None, config_name: str, config: Config
) -> Workdir:
    """Make or open the folder and lock it, in one process."""
    try:
        if path is None:
            name = time.strftime("%Y%m%d-%H%M%S")
            folder = _new_folder(Path("runs", config_name), name)
        else:
            folder = Path(path)
            folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            resumed = _check_owner(folder, config)
            write_text(folder / CONFIG_FILE, to_json(config))
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise InputError(
            f"the workdir {path or 'runs'} cannot be written: {error.strerror or error}"
            f" ({error.filename}). Give a folder that you may write with --workdir."
        ) from error
    return Workdir(path=folder, resumed=resumed, lock=lock)


def _check_shared(folder: Path, lock: IO[str] | None) -> None:
    """Refuse a folder in which a process does not see what the main one wrote."""
    token = processes.from_main(lambda: _write_token(lock))
    seen = processes.gather((socket.gethostname(), _sees(folder / LOCK_FILE, token)))
    blind = [f"process {i} on {host}" for i, (host, ok) in enumerate(seen) if not ok]
    if blind:
        raise InputError(
            f"the workdir {folder} is not shared: {', '.join(blind[:3])} "
            f"({len(blind)} of {len(seen)} processes) cannot read what process 0 wrote "
            "there. Give a --workdir on a disk that all hosts have at the same path."
        )
    if lock is not None:
        lock.truncate(0)


def _write_token(lock: IO[str] | None) -> str:
    """Write something new into the lock file, for the others to find."""
    assert lock is not None
    token = secrets.token_hex(8)
    lock.truncate(0)
    lock.write(token)
    lock.flush()
    return token


def _sees(file: Path, token: str) -> bool:
    """Wait until a file holds the token; a shared disk may take a while."""
    until = time.monotonic() + SHARED_SECONDS
    while True:
        try:
            if file.read_text(encoding="utf-8") == token:
                return True
        except OSError:  # not there, or not yet
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


def read_config(path: str | os.PathLike[str]) -> Config:
    """Read the config of a run's folder, without locking it.

    Raises:
      InputError: if the folder has no readable config.
    """
    file = Path(path) / CONFIG_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no workdir of jft: {file} cannot be read. Give the folder that "
            "a run of experiments.finetune named at its end."
        ) from error
    try:
        return from_json(text)
    except InputError as error:
        raise InputError(
            f"{file} is no config of this version of jft: {error}"
        ) from error


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that was not there, adding -2, -3, … to its name."""
    parent.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        folder = parent / (name if count == 1 else f"{name}-{count}")
        try:
            folder.mkdir()
        except FileExistsError:
            count += 1
        else:
            return folder


def _lock(folder: Path) -> IO[str]:
    """Take the folder's lock, which the system frees however this process ends."""
    stream = (folder / LOCK_FILE).open("a")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise InputError(
            f"the workdir {folder} is in use by another process. Wait for it to end, "
            "or give another --workdir."
        ) from error
    return stream


def _check_owner(folder: Path, config: Config) -> bool:
    """Return whether this config began the folder; False if nothing was begun."""
    ours = (LOCK_FILE, CONFIG_FILE, f".{CONFIG_FILE}.partial")
    others = sorted(p.name for p in folder.iterdir() if p.name not in ours)
    if not (folder / CONFIG_FILE).exists():
        if others:
            raise InputError(
                f"the workdir {folder} has no {CONFIG_FILE} but holds "
                f"{', '.join(others[:5])}, so it is not a run's. Give an empty or a "
                "new folder."
            )
        return False
    different = differences(read_config(folder), config)
    if not others:  # a config that was refused before the start claims nothing
        return False
    changes = [
        f"{key}: {theirs!r} there, {ours!r} here"
        for key, (theirs, ours) in different.items()
        if key not in MAY_CHANGE
    ]
    if changes:
        raise InputError(
            f"the workdir {folder} belongs to another config ({'; '.join(changes)}). "
            "Give another --workdir, or the same settings to resume."
        )
    return True

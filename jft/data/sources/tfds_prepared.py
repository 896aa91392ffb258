# SPDX-License-Identifier: Apache-2.0
"""Where TensorFlow Datasets has prepared a data set, and in which format."""

import os
import re
from pathlib import Path
from typing import Any

from jft.types import InputError

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[^/:]+))?(:(?P<version>[\d.]+))?")
_INFO = "dataset_info.json"


def open_prepared(name: str, data_dir: str | Path | None) -> Any:
    """Open a prepared data set as a builder that only reads.

    Nothing is downloaded or prepared, and no code of a data set is run.

    Args:
      name: ``"dataset[/config][:version]"``, the newest version where none is named;
        or the folder of a version.
      data_dir: as of `TfdsSource`.

    Raises:
      InputError: if the data set is not prepared or not as ARRAY_RECORD; the message
        has the command that prepares it.
    """
    tfds = import_tfds()
    builder = tfds.builder_from_directory(_prepared_folder(name, data_dir))
    _check_format(builder, tfds)
    return builder


def import_tfds() -> Any:
    """Import the package.

    Raises:
      InputError: if it, or what it needs itself, is absent.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"TensorFlow Datasets cannot be imported: {error}. Install it with "
            "pip install 'jft[tfds]'; TensorFlow itself is not needed."
        ) from error
    return tensorflow_datasets


def _prepared_folder(name: str, data_dir: str | Path | None) -> Path:
    folder = Path(name).expanduser()
    if (folder / _INFO).is_file():
        return folder
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"{name!r} is neither a folder with {_INFO} nor a name of the form "
            "'dataset/config:version'. Give the folder of one version, or a name."
        )
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(data_dir or default).expanduser().absolute()
    folder = root / match["name"] / (match["config"] or "")
    if match["version"]:
        versions = [folder / match["version"]]
    else:
        versions = sorted(folder.glob("*.*.*"), key=_version_key)
    versions = [version for version in versions if (version / _INFO).is_file()]
    if not versions:
        there = sorted(
            str(path.parent.relative_to(root))
            for path in (root / match["name"]).glob(f"**/{_INFO}")
        )
        raise InputError(
            f"{name!r} is not prepared in {root}, which has {there or 'nothing'} of "
            "it. Name what it has, give another data_dir, or prepare it once; this may "
            f"download it, and some need TensorFlow for it: {_command(name, root)}"
        )
    return versions[-1]


def _version_key(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


def _command(name: str, root: Path | str) -> str:
    # not the command "tfds build": it does not start without TensorFlow
    return (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{root}')"
        ".download_and_prepare(file_format='array_record')\" "
        "(for a data set of your own, import its module before)"
    )


def _check_format(builder: Any, tfds: Any) -> None:
    formats = builder.info.available_file_formats()
    if tfds.core.FileFormat.ARRAY_RECORD in formats:
        return
    parts = str(builder.info.full_name).split("/")
    root = f"{Path(builder.data_dir, *['..'] * len(parts)).resolve()}_array_record"
    raise InputError(
        f"{builder.data_dir} is prepared as {sorted(f.value for f in formats)}, which "
        "cannot be read at random; expected 'array_record'. What is prepared is never "
        "replaced, so prepare it again elsewhere and give that data_dir: "
        + _command(f"{'/'.join(parts[:-1])}:{parts[-1]}", root)
    )

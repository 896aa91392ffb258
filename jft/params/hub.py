# SPDX-License-Identifier: Apache-2.0
"""From a name to a folder: a path as it is, a Hub id through the Hub's cache."""

import re
from pathlib import Path

from jft.types import InputError

# what a model folder may hold that jft reads; never code, never pickled weights
FILES = (
    "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.spm", "README.md",
)  # fmt: skip
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# the same weights in other formats
OTHER_COPIES = ("*/*", "consolidated*")
HOLDS = {  # what the folder of each kind of name holds, for errors
    FILES: "a Hugging Face model folder (config.json and model.safetensors) or a Hub "
    "id such as 'google-bert/bert-base-uncased'",
    ADAPTER_FILES: "an adapter's folder (adapter_config.json and "
    "adapter_model.safetensors) or a Hub id such as 'somebody/an-adapter'",
}
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def find_folder(
    name: str | Path,
    *,
    revision: str | None = None,
    files: tuple[str, ...] = FILES,
) -> Path:
    """Return the folder of a model, downloading it from the Hub if need be.

    Files come from huggingface_hub's cache where it has them; ``HF_HUB_OFFLINE=1``
    asks the cache alone. Only safetensors weights are fetched.

    Args:
      name: a folder, or a Hub id such as ``"google-bert/bert-base-uncased"``.
      revision: a branch, tag or commit of the Hub's repository; pin a commit for runs
        that must be repeatable. None is the main branch.
      files: what of a repository is fetched, ``FILES`` of a model or ``ADAPTER_FILES``.

    Returns:
      A folder on this machine.

    Raises:
      InputError: if it is neither a folder nor an id, or the Hub does not give it.
    """
    folder = Path(name)
    if str(name) and folder.is_dir():
        if revision is not None:
            raise InputError(
                f"revision {revision!r} was given with the folder {folder}; revisions "
                "are the Hub's. Leave it out, or give a Hub id."
            )
        return folder
    if folder.exists() or not HUB_ID.fullmatch(str(name)):
        raise _no_folder(name, files)
    return _download(str(name), revision, files)


def _no_folder(name: str | Path, files: tuple[str, ...]) -> InputError:
    return InputError(f"{str(name)!r} is no folder; give the path of {HOLDS[files]}.")


def _download(name: str, revision: str | None, files: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = "" if revision is None else f" at revision {revision!r}"
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(files),
                ignore_patterns=list(OTHER_COPIES),
            )
        )
    except HFValidationError as error:
        raise _no_folder(name, files) from error
    except GatedRepoError as error:
        raise InputError(
            f"{name!r} is gated on the Hub: accept its terms there and log in with "
            "`hf auth login`, or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"the Hub's {name!r} has no revision {revision!r}; give a branch, a tag or "
            "a commit that its page lists."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(
            f"{name!r}{at} is no folder here and not in the Hub's cache, and the Hub "
            "cannot be reached (or HF_HUB_OFFLINE is set). Give the path of a "
            "folder, or connect once to download it."
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise InputError(
            f"{name!r} is no folder here and no public model of the Hub. Check the "
            "spelling; private models need `hf auth login` or HF_TOKEN."
        ) from error
    except Exception as error:  # networks fail in many ways
        raise InputError(
            f"the Hub did not give {name!r}{at}: {error}. Try again, or give the path "
            "of a downloaded folder."
        ) from error

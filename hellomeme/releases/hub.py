"""Resumable, checksum-verified downloads into the Hugging Face cache.

The cache is huggingface_hub's own, so that other programs share it. But huggingface_hub restarts a large file
after a cancelled download, and does not verify it. Here a large file is downloaded under the name of its
SHA-256, and moves to its place when the checksum matches.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import HelloMemeError

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
HALF_WEIGHTS = tuple(name.replace(".safetensors", ".fp16.safetensors") for name in WEIGHTS)
CONFIG_FILES = (
    "model_index.json",
    "*/config.json",
    "scheduler/*.json",
    "tokenizer/*.json",
    "tokenizer/*.txt",
)
PARTS = ("unet", "vae", "text_encoder")
BASE_FILES = CONFIG_FILES + tuple(f"{part}/{name}" for part in PARTS for name in WEIGHTS)
HALF_BASE_FILES = CONFIG_FILES + tuple(f"{part}/{name}" for part in PARTS for name in HALF_WEIGHTS)
NETWORK_FILES = ("config.json", *WEIGHTS)
# Not ./a, ../a or a/b.safetensors: those are paths
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(?<!\.safetensors)")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
NOT_FOUND = "There is no folder or file {}: check the path, or give the id of a repository."
DEMO_REMARK = "the bundled demo model needs no network"
ADVICE = f"give a local folder, or choose another model ({DEMO_REMARK})"
# Errors of the disk, not of the hub
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EIO,
)

Progress = Callable[[str, int, int], None]  # called with a source, bytes that are here, and bytes in all


def fetch(source: str, files: tuple[str, ...] = NETWORK_FILES, progress: Progress | None = None) -> Path:
    """A local folder as it is, or the named files of a hub repository, downloaded unless they are cached.

    The environment variables and tokens of huggingface_hub apply (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE). The
    hub is not asked for what is completely cached. An interrupted download resumes where it stopped.
    progress: called for large files; without, huggingface_hub draws its bars on standard error. An exception
    it raises cancels the download, which can be resumed later.
    Raises HelloMemeError where there is no such folder or repository, no network, no space, or what arrives
    is not what the hub announced.
    """
    if os.path.isdir(as_path(source)):
        return as_path(source)
    if not HUB_ID.fullmatch(source):
        raise HelloMemeError(NOT_FOUND.format(source))
    if (folder := _cached_folder(source, files)) is not None:
        return folder
    with explained(source):
        return _download(source, files, progress)


def check_exists(source: str | Path) -> None:
    """Refuse a name that is nothing on this computer and cannot be in the hub, before anything is fetched."""
    in_hub = HUB_ID.fullmatch(str(source)) or re.fullmatch(f"{HUB_ID.pattern}/.+", str(source))
    if not in_hub and not os.path.exists(as_path(source)):
        is_file = as_path(source).suffix.lower() in (".safetensors", *PICKLES)
        raise HelloMemeError(
            f"There is no file {source}: check the path." if is_file else NOT_FOUND.format(source)
        )


def as_path(source: str | Path) -> Path:
    """A source as a path. Ask `os.path` whether it exists: Path's own methods raise for names that no file
    can have."""
    if not isinstance(source, (str, Path)):
        kind = type(source).__name__
        raise HelloMemeError(
            f"A model is named by a text, not {kind}: give a path or the id of a repository."
        )
    return Path(os.path.expanduser(source))


def cached(source: str, files: tuple[str, ...] = NETWORK_FILES) -> bool:
    """Whether the named files of a hub repository lie in the local cache already, all of them."""
    return _cached_folder(source, files) is not None


def missing(source: str, files: tuple[str, ...] = NETWORK_FILES) -> list[str]:
    """What of the named files of a hub repository is not in the local cache; empty where `fetch` would ask
    nobody. The weights of a part go by that word: whether the hub has them whole or halved is not known."""
    from huggingface_hub import try_to_load_from_cache

    if cached(source, files):
        return []

    def is_here(name: str) -> bool:
        return isinstance(try_to_load_from_cache(source, name), str)

    lacking = []
    for part in sorted(_parts(files)):
        prefix = f"{part}/" if part else ""
        lacking += [] if is_here(f"{prefix}config.json") else [f"{prefix}config.json"]
        if not any(is_here(prefix + name) for name in WEIGHTS + HALF_WEIGHTS):
            lacking.append(f"{prefix}weights")
    return lacking or [files[0]]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """In this block the hub is not asked, as with HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def download_again(path: Path, them: str = "it") -> str:
    """How to replace a damaged file of a model (or "them", its weights), as the end of a sentence."""
    from huggingface_hub import constants

    # The file itself, not the link to it: with only the link gone, the damaged file would be linked again.
    file = Path(os.path.realpath(path))
    if file.is_relative_to(os.path.realpath(constants.HF_HUB_CACHE)):
        return f"delete {file} and try again, it will be downloaded anew"
    return f"download {them} again"


def _cached_folder(source: str, files: tuple[str, ...]) -> Path | None:
    """The cached folder, if it is complete: it has the weights of every part, which are downloaded last, or
    else the index of a base model, which comes after its small files."""
    from huggingface_hub import errors, snapshot_download

    try:  # refuses a folder that huggingface_hub itself left unfinished
        folder = Path(snapshot_download(source, allow_patterns=list(files), local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return None
    if not (parts := _parts(files)):
        whole = any(path.is_file() for path in folder.glob(files[0]))
    else:
        whole = all(
            (folder / part / "config.json").is_file() and _has_weights(folder / part) for part in parts
        )
    return folder if whole else None


def _parts(files: tuple[str, ...]) -> set[str]:
    """The folders whose weights are asked for."""
    return {os.path.dirname(name) for name in files if os.path.basename(name) in WEIGHTS + HALF_WEIGHTS}


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHTS + HALF_WEIGHTS)


def wanted(source: str, files: tuple[str, ...], timeout: float | None = None) -> tuple[str, list]:
    """The commit of a repository, and what the hub says of the named files that it has.

    timeout: s to wait for an answer; that of huggingface_hub if None."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import filter_repo_objects

    # Without a time-out, a hub that does not answer would be waited for without end
    timeout = timeout or constants.HF_HUB_ETAG_TIMEOUT
    facts = HfApi().model_info(source, files_metadata=True, timeout=timeout)
    there = facts.siblings or ()
    chosen = list(filter_repo_objects(there, allow_patterns=list(files), key=lambda file: file.rfilename))
    if not chosen:
        raise HelloMemeError(f"The hub's {source} holds no safetensors model: choose another.")
    return facts.sha, chosen


def _download(source: str, files: tuple[str, ...], progress: Progress | None) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.file_download import repo_folder_name

    sha, chosen = wanted(source, files)
    name = repo_folder_name(repo_id=source, repo_type="model")
    cache = Path(os.path.expanduser(constants.HF_HUB_CACHE))
    blobs, locks = cache / name / "blobs", cache / ".locks" / name
    for folder in (blobs, locks):
        folder.mkdir(parents=True, exist_ok=True)

    def part(file) -> Path:
        return blobs / f"{file.lfs.sha256}.incomplete"

    missing = [file for file in chosen if file.lfs and not (blobs / file.lfs.sha256).exists()]
    here = {file.rfilename: part(file).stat().st_size if part(file).exists() else 0 for file in missing}
    needed, free = sum(file.lfs.size for file in missing) - sum(here.values()), shutil.disk_usage(blobs).free
    if needed > free:
        raise HelloMemeError(
            f"{source} needs {needed / 1e9:.1f} GB more, and {cache} has {free / 1e9:.1f} GB left: "
            "make room, or set "
            "HF_HOME to another disk."
        )
    total, done = sum(file.lfs.size for file in missing), sum(here.values())
    for file in sorted(
        chosen, key=lambda file: (bool(file.lfs), file.rfilename == "model_index.json", file.rfilename)
    ):
        if file in missing:
            done -= here[file.rfilename]
            bar = progress and functools.partial(_ProgressBar, progress, source, done, total)
            _download_large(source, sha, file, part(file), locks / f"{file.lfs.sha256}.lock", bar)
            done += file.lfs.size
        path = Path(hf_hub_download(source, file.rfilename))
    return path.parents[file.rfilename.count("/")]


def _download_large(source: str, revision: str, file, part: Path, lock: Path, bar) -> None:
    """Downloads a file, or the rest of it, to `part`, and renames it when its SHA-256 matches."""
    from huggingface_hub import errors, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers
    from huggingface_hub.utils.sha import sha_fileobj

    whole, size = part.with_suffix(""), file.lfs.size
    damaged = f"{file.rfilename} of {source} arrived damaged and was thrown away: try again, or {ADVICE}."
    with WeakFileLock(lock):
        if whole.exists():  # another process was quicker
            return
        with part.open("ab") as stream:
            if stream.tell() > size:
                _truncate(stream)
            url = hf_hub_url(source, file.rfilename, revision=revision)
            own = {"headers": build_hf_headers(), "expected_size": size, "displayed_filename": file.rfilename}
            while (here := stream.tell()) < size:
                try:
                    http_get(url, stream, resume_size=here, tqdm_class=bar, **own)
                except errors.HTTPError as error:
                    response = getattr(error, "response", None)
                    if response is None and stream.tell() > here:
                        continue  # cut off, but something came: ask for the rest
                    if response is None and here:
                        raise HelloMemeError(
                            f"The download of {source} was cut off at {here / size:.0%} of {file.rfilename}: "
                            f"try again, it goes on from there, or {ADVICE}."
                        ) from error
                    if response is not None and response.status_code == 416:  # there is no such rest
                        _truncate(stream)
                    raise
                except OSError as error:
                    if error.errno is None:  # the hub sent another number of bytes than it announced
                        _truncate(stream)
                        raise HelloMemeError(damaged) from error
                    raise
        with part.open("rb") as stream:
            right = sha_fileobj(stream).hex() == file.lfs.sha256
        if not right:
            part.unlink()
            raise HelloMemeError(damaged)
        part.replace(whole)


def _truncate(stream: BinaryIO) -> None:
    stream.seek(0)
    stream.truncate()


class _ProgressBar:
    """The part of tqdm's interface that `http_get` uses, reporting to a callback."""

    def __init__(self, progress: Progress, source: str, before: int, of_all: int, initial: int = 0, **_):
        self.report = functools.partial(progress, source)
        self.done, self.of_all = before + initial, of_all

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, count: int) -> None:
        self.done += count
        self.report(self.done, self.of_all)


@contextlib.contextmanager
def explained(source: str) -> Iterator[None]:
    """Errors of the hub, the network and the disk become HelloMemeError."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.HTTPError, errors.HFValidationError, OSError, ValueError) as error:
        if isinstance(error, HelloMemeError):
            raise
        raise HelloMemeError(_explain(source, error)) from error


def _explain(source: str, error: Exception) -> str:
    """The sentence for an error of the hub: what went wrong, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # huggingface_hub tells of the cache first, and of the hub only behind it
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{source} asks for a login: accept its terms on the hub and run `hf auth login`."
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return f"There is no folder and no public hub repository {source}: check the name."
    if status in (401, 403):
        return (
            f"The hub refuses {source} to you: run `hf auth login` with a token that may read it, "
            f"or {ADVICE}."
        )
    if status is not None:
        return f"The hub answered the request for {source} with error {status}: try again later, {ADVICE}."
    if getattr(error, "errno", None) in DISK_ERRORS:
        why = f"{source} could not be saved to the cache of the hub: {error.strerror}"
        return f"{why}; make room, or set HF_HOME to another folder."
    return f"{source} is not on this computer and the hub cannot be reached: connect to a network, {ADVICE}."

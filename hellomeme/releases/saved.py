"""A pipeline with its release in one folder or hub repository.

Beside what diffusers saves there are the row (`release.json`), the encoders of expressions, the face basis,
the measured presets and a model card.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..errors import HelloMemeError
from ..models.layout import use_fastest_layout
from ..models.lora_layers import adapters
from .card import model_card
from .expressions import FILE as MEASURED
from .hub import HUB_ID, NETWORK_FILES, as_path, explained, fetch
from .networks import limit_types, load_encoders
from .row_file import FILE, INDEX, encoder_networks, read_row, saved_types, write_row
from .styles import Style
from .table import FACE_BASIS, Release
from .tensors import check_values, check_weights
from .weights import read_config, reason

if TYPE_CHECKING:
    from torch import Tensor

    from ..expression import ExpressionEncoders

P = TypeVar("P", bound="SavedRelease")
CARD = "README.md"
DOWNLOADS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
UPLOADS = ("repo_id", "private", "token", "commit_message", "create_pr")
NO_NETWORK = re.compile("Tokenizer|Scheduler")  # in the name of a class: a part without weights


class SavedRelease:
    """The part of `HelloMemePipeline` that saves, loads and uploads it with its release.

    release: its row; None for a pipeline that was put together by hand. encoders: of expressions. base: hub
    id or path of the base model; None if that is not known. style: the one it was loaded with.
    embeddings: word -> its vectors (n, D), for prompts.
    """

    release: Release | None = None
    encoders: ExpressionEncoders | None = None
    base: str | None = None
    style: Style = Style()
    embeddings: Mapping[str, Tensor] = MappingProxyType({})

    @classmethod
    def from_pretrained(cls: type[P], pretrained_model_name_or_path: str | Path, **options: Any) -> P:
        """The pipeline in a folder or hub repository, with its release, ready for `Reenactor(pipeline)`.

        options: those of diffusers, `torch_dtype` for example. Only safetensors are read. Downloads resume,
        as those of releases do. Raises HelloMemeError for a folder that holds no pipeline or is damaged, and
        where the hub cannot be asked.
        """
        folder = local_folder(pretrained_model_name_or_path, options)
        for path in folder.glob("*/*.safetensors"):
            check_weights(path)
            check_values(path)
        try:
            pipeline = super().from_pretrained(str(folder), **{**options, "use_safetensors": True})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            raise HelloMemeError(f"The pipeline in {folder} cannot be loaded: {reason(error)}") from error
        pipeline.release = row = read_row(folder)
        if row is not None:
            for net in pipeline.controls:
                limit_types(net, saved_types(folder))
            types = sorted(pipeline.expression_types)
            pipeline.encoders = load_encoders(row, types, pipeline.unet.device, pipeline.unet.dtype)
        return pipeline

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Writes the pipeline and its release to a folder, which `from_pretrained` and `--release` read.

        push_to_hub: uploads it too; the options of `push_to_hub` then apply. A README.md that is there stays.
        Raises HelloMemeError with LoRA loaded, or for weights other than safetensors.
        """
        if not safe_serialization:
            raise HelloMemeError("Weights are saved as safetensors only: leave safe_serialization out.")
        networks = (self.unet, self.text_encoder, self.reference_unet, self.reference_text_encoder)
        theirs = any(self.get_list_adapters().values())
        if theirs or any(adapters(net) for net in networks if net is not None):
            raise HelloMemeError(
                "LoRA are loaded and would be lost: call fuse_lora() and unload_lora_weights() first, "
                "or, for another kind than plain LoRA, save without it."
            )
        upload = {name: options.pop(name) for name in UPLOADS if name in options}
        super().save_pretrained(str(save_directory), **options)
        folder = Path(save_directory)
        if self.release is not None:
            self._save_release(folder)
        if not (folder / CARD).exists():
            self._save_card(folder, upload.get("repo_id", folder.name))
        if push_to_hub:
            _upload(folder, **{"repo_id": folder.name, **upload})

    def push_to_hub(self, repo_id: str, variant: str | None = None, **options: Any) -> str:
        """Uploads the pipeline and its release; returns the address of the commit.

        repo_id: of the repository, which is made if it does not exist. variant: see diffusers. options:
        `private`, `token`, `commit_message`, `create_pr`. A model card that is there stays.
        Raises HelloMemeError as `save_pretrained` does, and if the hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._save_card(Path(folder), repo_id)
            self.save_pretrained(folder, variant=variant)
            return _upload(Path(folder), repo_id, **options)

    def known_release(self) -> Release:
        """Its row; HelloMemeError without one."""
        if self.release is None:
            raise HelloMemeError(
                "The pipeline knows no release: pass its row, or load it with Reenactor.from_release."
            )
        return self.release

    def to(self: P, *args: Any, **options: Any) -> P:
        """Moves the pipeline, and its encoders with it; see diffusers. The weights take the layout that is
        fastest there."""
        self.placement = None
        super().to(*args, **options)
        for part in self.components.values():
            if isinstance(part, torch.nn.Module):
                use_fastest_layout(part)
        if self.encoders is not None:
            self.encoders.to(self.unet.device, self.unet.dtype)
        return self

    def _save_release(self, folder: Path) -> None:
        row = self.release
        write_row(row, sorted(self.expression_types), folder)
        if row.face_basis is not None and row.root.resolve() != folder.resolve():
            shutil.copyfile(row.root / row.face_basis, folder / FACE_BASIS)
        if row.root is not None and (row.root / MEASURED).is_file() and not (folder / MEASURED).exists():
            shutil.copyfile(row.root / MEASURED, folder / MEASURED)
        for name, net in encoder_networks(row).items():
            if (encoder := getattr(self.encoders, name, None)) is not None:
                encoder.save_pretrained(folder / net.source.folder)

    def _save_card(self, folder: Path, name: str) -> None:
        card = model_card(name, self.release, self.base, self.expression_types, self.has_motion)
        (folder / CARD).write_text(card, encoding="utf-8")


def local_folder(source: str | Path, options: dict[str, Any]) -> Path:
    """The folder of a saved pipeline, downloaded unless it is here. Takes DOWNLOADS out of the options.

    Raises HelloMemeError as `hub.fetch` does.
    """
    chosen = {name: options.pop(name) for name in DOWNLOADS if name in options}
    if os.path.isdir(as_path(source)):
        return as_path(source)
    source = str(source)
    folder = _download(source, (INDEX, FILE), chosen)
    networks, others = [], []
    for name, value in read_config(folder, INDEX).items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str):
            (others if NO_NETWORK.search(value[1]) else networks).append(name)
    if (row := read_row(folder)) is not None:
        networks += [net.source.folder for net in encoder_networks(row).values()]
    files = (INDEX, FILE, FACE_BASIS, MEASURED, *(f"{name}/*" for name in others))
    files += tuple(f"{part}/{name}" for part in networks for name in NETWORK_FILES)
    return _download(source, files, chosen)


def _download(source: str, files: tuple[str, ...], chosen: dict[str, Any]) -> Path:
    """With options, by huggingface_hub alone: another revision, cache or account than the usual one."""
    if not chosen:
        return fetch(source, files)
    from huggingface_hub import snapshot_download

    with explained(source):
        return Path(snapshot_download(source, allow_patterns=list(files), **chosen))


def _upload(
    folder: Path, repo_id: str, private: bool | None = None, token: str | None = None, **options: Any
) -> str:
    """Uploads a folder and returns the address of the commit."""
    from huggingface_hub import HfApi, errors

    if not HUB_ID.fullmatch(repo_id) and not re.fullmatch(r"\w[\w.-]*", repo_id):
        raise HelloMemeError(f"{repo_id} is no name of a hub repository: give one like me/my-release.")
    options = {"commit_message": "Upload a HelloMeme pipeline", **options}
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        there = [CARD] if api.file_exists(repo_id, CARD) else None
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=there, **options)
    except (errors.HTTPError, OSError, ValueError) as error:
        raise HelloMemeError(
            f"{repo_id} could not be uploaded; check the network, and run `hf auth login` with a token that "
            f"may write to it; the hub's words: {reason(error)}"
        ) from error
    return commit.commit_url

"""Publishes to Hugging Face: a repository per model, a commit and a tag per version.

At the tag vVERSION, the root of the repository OWNER/ARCH-KIND holds the model's files,
the documents whose names begin with `huggingface/`, and the conformance report.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import sys
import tempfile
import typing
from collections.abc import Iterator

from publishing import pairs, upload_files

_DOCUMENTS = "huggingface/"
_HUB_FILE = ".gitattributes"  # created by the hub


class HuggingFace:
    """Publishes models to an account, with the token that huggingface_hub finds.

    A commit holds a whole version. The tag is created last and publishes it.

    Args:
      owner: name of the account.

    Raises:
      ImportError: huggingface_hub is not installed.
      ValueError: `owner` is not a valid account name.
    """

    takes_formats = False

    def __init__(self, owner: str):
        upload_files.check_owner(owner, "hf")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read at import
        if not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        try:
            import huggingface_hub
        except ImportError as error:
            raise ImportError(
                "--hub=hf:… needs huggingface_hub: run tools/setup publish"
            ) from error
        self._library = huggingface_hub
        self._api = huggingface_hub.HfApi()
        self.owner = owner

    def handles(self, pair: pairs.Pair) -> list[str]:
        return [f"{self._repository(model)}@{_tag(model)}" for model in pair.models]

    def _repository(self, model: pairs.ExportedModel) -> str:
        return f"{self.owner}/{model.arch}-{model.kind}"

    def has(self, pair: pairs.Pair) -> bool:
        """See `upload_files.Destination`."""
        with _connection_errors():
            published = [self._has(model) for model in pair.models]  # each may raise
        return all(published)

    def _has(self, model: pairs.ExportedModel) -> bool:
        errors = self._library.errors
        try:
            files = self._files(model, _tag(model))
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            return False
        for name, path in model.files().items():
            if name not in files or not _is_same(files[name], path):
                raise ValueError(
                    f"{self._repository(model)}@{_tag(model)} is already published "
                    f"with a different {name}, and a published version can't change: "
                    f"export with a --version other than {model.version}."
                )
        return True

    def _files(
        self, model: pairs.ExportedModel, revision: str
    ) -> dict[str, typing.Any]:
        """Returns the hub's entry for each file of a repository, by path."""
        tree = self._api.list_repo_tree(
            self._repository(model), revision=revision, recursive=True
        )
        return {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}

    def refresh(self) -> None:
        """Does nothing: the hub makes its own pages."""

    def pack(
        self, pair: pairs.Pair, documents: upload_files.Documents, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """See `upload_files.Destination`; targets begin with repository and tag."""
        uploads = []
        for model, handle in zip(pair.models, self.handles(pair), strict=True):
            kind_documents = documents[model.kind]
            repository_files = upload_files.documents_below(_DOCUMENTS, kind_documents)
            repository_files[upload_files.REPORT] = kind_documents[upload_files.REPORT]
            for name, path in model.files().items():
                if name in repository_files:
                    raise ValueError(f"{path} has the name of the document {name}.")
                uploads.append(upload_files.upload_file(f"{handle}/{name}", path))
            for name, content in repository_files.items():
                file = upload_files.write_file(name, content, scratch / model.kind)
                target = f"{handle}/{name}"
                uploads.append(upload_files.upload_file(target, file.source))
        return uploads

    def publish(self, pair: pairs.Pair, documents: upload_files.Documents) -> None:
        """Sends the models that are not published; skips files sent before."""
        with tempfile.TemporaryDirectory() as scratch, _connection_errors():
            uploads = self.pack(pair, documents, pathlib.Path(scratch))
            for model, handle in zip(pair.models, self.handles(pair), strict=True):
                if not self._has(model):
                    self._commit(model, upload_files.files_in(handle, uploads))

    def _commit(
        self, model: pairs.ExportedModel, files: dict[str, pathlib.Path]
    ) -> None:
        repository = self._repository(model)
        self._api.create_repo(repository, exist_ok=True)
        stale = self._files(model, "main").keys() - files.keys() - {_HUB_FILE}
        commit = self._api.create_commit(
            repository,
            operations=[
                *(
                    self._library.CommitOperationAdd(name, str(path))
                    for name, path in files.items()
                ),
                *(self._library.CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message=f"Version {model.version}",
        )
        self._api.create_tag(repository, tag=_tag(model), revision=commit.oid)


def _tag(model: pairs.ExportedModel) -> str:
    return f"v{model.version}"


def _is_same(entry: typing.Any, path: pathlib.Path) -> bool:
    """Checks whether a file of a repository has the same bytes as a local file."""
    if entry.lfs:
        return entry.lfs.sha256 == upload_files.upload_file(path.name, path).sha256
    content = path.read_bytes()
    blob = b"blob %d\0" % len(content) + content  # the input of git's hash
    return entry.blob_id == hashlib.sha1(blob).hexdigest()


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Converts errors of the library to a one-line `ConnectionError`."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (errors.HfHubHTTPError, httpx2.HTTPError, RuntimeError) as error:
        messages = dict.fromkeys(map(str, filter(None, (error, error.__cause__))))
        reason = "; ".join(messages)
        message = f"Hugging Face: {reason}; run the command again."
        raise ConnectionError(message) from error

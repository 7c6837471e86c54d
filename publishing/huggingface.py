"""Hugging Face: a repository for each half, a commit and a tag for each version.

OWNER/ARCH-KIND at the tag vVERSION holds the model's files at its root, with the
documents whose names begin with `huggingface/`, and the conformance report.
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
_REPORT = "conformance.json"
_OWN = ".gitattributes"  # the hub makes it


class HuggingFace:
    """The models of an account; the token is where huggingface_hub looks for it.

    A commit holds a whole version, and the tag, which comes last, publishes it.

    Args:
      owner: the account.

    Raises:
      ImportError: huggingface_hub is not there.
    """

    def __init__(self, owner: str):
        upload_files.check_owner(owner, "hf")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when imported
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
        return [f"{self._repository(half)}@{_tag(half)}" for half in pair.halves]

    def _repository(self, half: pairs.ExportedModel) -> str:
        return f"{self.owner}/{half.arch}-{half.kind}"

    def has(self, pair: pairs.Pair) -> bool:
        """See `parcels.Destination`."""
        with _explained():
            there = [self._has(half) for half in pair.halves]  # each may refuse
        return all(there)

    def _has(self, half: pairs.ExportedModel) -> bool:
        errors = self._library.errors
        try:
            found = self._files(half, _tag(half))
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            return False
        for name, path in half.files().items():
            if name not in found or not _is_same(found[name], path):
                raise ValueError(
                    f"{self._repository(half)}@{_tag(half)} is published already, with "
                    f"another {name}, and a version never changes: export another "
                    f"--version than {half.version}."
                )
        return True

    def _files(self, half: pairs.ExportedModel, revision: str) -> dict[str, typing.Any]:
        """What the hub says of each file of a repository, by path."""
        tree = self._api.list_repo_tree(
            self._repository(half), revision=revision, recursive=True
        )
        return {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}

    def pack(
        self, pair: pairs.Pair, papers: upload_files.Documents, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """See `parcels.Destination`; targets begin with repository and tag."""
        items = []
        for half, handle in zip(pair.halves, self.handles(pair), strict=True):
            documents = upload_files.under(_DOCUMENTS, papers[half.kind])
            documents[_REPORT] = papers[half.kind][_REPORT]
            for name, path in half.files().items():
                if name in documents:
                    raise ValueError(f"{path} is in the way of the document {name}.")
                items.append(upload_files.upload_file(f"{handle}/{name}", path))
            for name, content in documents.items():
                made = upload_files.written_file(name, content, scratch / half.kind)
                items.append(upload_files.upload_file(f"{handle}/{name}", made.source))
        return items

    def publish(self, pair: pairs.Pair, papers: upload_files.Documents) -> None:
        """Sends each half that is not there; what was sent before is not sent again."""
        with tempfile.TemporaryDirectory() as scratch, _explained():
            items = self.pack(pair, papers, pathlib.Path(scratch))
            for half, handle in zip(pair.halves, self.handles(pair), strict=True):
                if not self._has(half):
                    self._commit(half, upload_files.inside(handle, items))

    def _commit(
        self, half: pairs.ExportedModel, files: dict[str, pathlib.Path]
    ) -> None:
        repository = self._repository(half)
        self._api.create_repo(repository, exist_ok=True)
        stale = self._files(half, "main").keys() - files.keys() - {_OWN}
        commit = self._api.create_commit(
            repository,
            operations=[
                *(
                    self._library.CommitOperationAdd(name, str(path))
                    for name, path in files.items()
                ),
                *(self._library.CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message=f"Version {half.version}",
        )
        self._api.create_tag(repository, tag=_tag(half), revision=commit.oid)


def _tag(half: pairs.ExportedModel) -> str:
    return f"v{half.version}"


def _is_same(entry: typing.Any, path: pathlib.Path) -> bool:
    """Whether a file of a repository has the bytes of one here."""
    if entry.lfs:
        return entry.lfs.sha256 == upload_files.upload_file(path.name, path).sha256
    content = path.read_bytes()
    blob = b"blob %d\0" % len(content) + content  # as git names it
    return entry.blob_id == hashlib.sha1(blob).hexdigest()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Makes a line of what the library raises where the hub can't be reached."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (errors.HfHubHTTPError, httpx2.HTTPError, RuntimeError) as error:
        known = dict.fromkeys(map(str, filter(None, (error, error.__cause__))))
        reason = "; ".join(known)
        raise ConnectionError(f"Hugging Face: {reason}; run it again.") from error

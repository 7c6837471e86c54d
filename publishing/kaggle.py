"""Kaggle Models: a model for each arch, a variation for each half.

OWNER/ARCH/tensorFlow2/KIND/VERSION, with hyphens for underscores, as its addresses have
them. Kaggle counts the versions of a variation itself, from 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
import tempfile
import typing
from collections.abc import Iterator, Mapping

from exporters import manifest
from publishing import pairs, upload_files

_FRAMEWORK = "tensorFlow2"
_DOCUMENTS = "kaggle/"
_INSTANCE = "model-instance-metadata.json"
_FIELDS = {  # of these metadata, and what the library calls them
    "overview": "overview",
    "usage": "usage",
    "fineTunable": "fine_tunable",
    "trainingData": "training_data",
}


class Kaggle:
    """The models of an account; the token is where kagglehub looks for it.

    Kaggle makes new models private: their owner opens them. A version appears when all
    of its files are there, the two halves one after the other.

    Args:
      owner: the account.

    Raises:
      ImportError: kagglehub is not there.
    """

    def __init__(self, owner: str):
        upload_files.check_owner(owner, "kaggle")
        os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")
        if not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # its log keeps what is there
                import kagglehub
        except ImportError as error:
            raise ImportError(
                "--hub=kaggle:… needs kagglehub: run tools/setup publish"
            ) from error
        self._library = kagglehub
        self.owner = owner

    def handles(self, pair: pairs.Pair) -> list[str]:
        return [f"{self._variation(half)}/{half.version}" for half in pair.halves]

    def _variation(self, half: pairs.ExportedModel) -> str:
        parts = (self.owner, _slug(half.arch), _FRAMEWORK, _slug(half.kind))
        return "/".join(parts)

    def has(self, pair: pairs.Pair) -> bool:
        """See `parcels.Destination`."""
        with _explained():
            there = [self._has(half) for half in pair.halves]  # each may refuse
        return all(there)

    def _has(self, half: pairs.ExportedModel) -> bool:
        """Whether it is there; raises if Kaggle would give it another number."""
        latest = self._latest_version(half)
        if half.version > latest + 1:
            raise ValueError(
                f"Kaggle counts versions itself: the next one of "
                f"{self._variation(half)} is {latest + 1}, not {half.version}."
            )
        if half.version > latest:
            return False
        handle = f"{self._variation(half)}/{half.version}"
        with tempfile.TemporaryDirectory() as folder:
            # It has the hashes of all other files in it.
            found = self._library.model_download(
                handle, str(manifest.MANIFEST), output_dir=folder
            )
            theirs = pathlib.Path(found).read_bytes()
        if theirs != (half.folder / manifest.MANIFEST).read_bytes():
            raise ValueError(
                f"{handle} is published already, with another {manifest.MANIFEST}, and "
                f"a version never changes: export it with --version={latest + 1}."
            )
        return True

    def _latest_version(self, half: pairs.ExportedModel) -> int:
        from kagglehub import clients, exceptions
        from kagglesdk.models.types import model_api_service as messages

        request = messages.ApiGetModelInstanceRequest()
        self._name(request, half)
        try:
            with clients.build_kaggle_client() as client:
                models = client.models.model_api_client
                found = exceptions.handle_call(
                    lambda: models.get_model_instance(request)
                )
        except exceptions.KaggleApiHTTPError as error:
            # It says "forbidden" of models that do not exist, lest they be guessed.
            if error.response is not None and error.response.status_code in (403, 404):
                return 0
            raise
        return found.version_number

    def _name(self, request: typing.Any, half: pairs.ExportedModel) -> None:
        """Says in a request which variation is meant."""
        from kagglehub import handle

        named = handle.parse_model_handle(self._variation(half))
        request.owner_slug = named.owner
        request.model_slug = named.model
        request.instance_slug = named.variation
        request.framework = named.framework_enum()

    def pack(
        self, pair: pairs.Pair, papers: upload_files.Documents, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """See `parcels.Destination`; of the metadata it is the fields that are sent."""
        items = []
        for half, handle in zip(pair.halves, self.handles(pair), strict=True):
            for name, path in half.files().items():
                items.append(upload_files.upload_file(f"{handle}/{name}", path))
            documents = upload_files.under(_DOCUMENTS, papers[half.kind])
            if _INSTANCE in documents:
                content = documents[_INSTANCE]
                made = upload_files.written_file(
                    _INSTANCE, content, scratch / half.kind
                )
                target = f"{self._variation(half)}#{_INSTANCE}"
                items.append(upload_files.upload_file(target, made.source))
        return items

    def publish(self, pair: pairs.Pair, papers: upload_files.Documents) -> None:
        """Sends each half that is not there."""
        with _explained():
            for half in pair.halves:
                documents = upload_files.under(_DOCUMENTS, papers[half.kind])
                metadata = json.loads(documents.get(_INSTANCE, b"{}"))
                half.files()  # refuses what should not be sent
                if not self._has(half):
                    self._library.model_upload(
                        self._variation(half),
                        str(half.folder),
                        license_name=metadata.get("licenseName"),
                        version_notes=f"version {half.version}, sha256 {half.sha256}",
                    )
                if metadata:
                    self._describe(half, metadata)

    def _describe(
        self, half: pairs.ExportedModel, metadata: Mapping[str, typing.Any]
    ) -> None:
        """Sets the texts of a variation's page, which are no part of a version."""
        from google.protobuf import field_mask_pb2
        from kagglehub import clients, exceptions
        from kagglesdk.models.types import model_api_service as messages

        request = messages.ApiUpdateModelInstanceRequest()
        self._name(request, half)
        given = {
            ours: metadata[name] for name, ours in _FIELDS.items() if name in metadata
        }
        for name, value in given.items():
            setattr(request, name, value)
        request.update_mask = field_mask_pb2.FieldMask(paths=sorted(given))
        with clients.build_kaggle_client() as client:
            models = client.models.model_api_client
            exceptions.handle_mutate_call(lambda: models.update_model_instance(request))


def _slug(name: str) -> str:
    return name.replace("_", "-").replace(".", "-")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Makes a line of what the library raises; what it prints goes to stderr."""
    import requests
    from kagglehub import exceptions

    ours = (
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.UnauthenticatedError,
        requests.RequestException,
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ours as error:
        raise ConnectionError(f"Kaggle: {error}; run it again.") from error

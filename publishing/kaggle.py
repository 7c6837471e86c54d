"""Publishes to Kaggle Models: a Kaggle model per arch, a variation per model of a pair.

Handles are OWNER/ARCH/tensorFlow2/KIND/VERSION, with hyphens instead of underscores.
Kaggle numbers the versions of a variation itself, from 1.
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
_FIELDS = {  # key in the metadata -> field of the library's request
    "overview": "overview",
    "usage": "usage",
    "fineTunable": "fine_tunable",
    "trainingData": "training_data",
}


class Kaggle:
    """Publishes models to an account, with the token that kagglehub finds.

    New models are private on Kaggle until their owner publishes them. A version appears
    once all its files are uploaded, first of one model of the pair, then of the other.

    Args:
      owner: name of the account.

    Raises:
      ImportError: kagglehub is not installed.
      ValueError: `owner` is not a valid account name.
    """

    takes_formats = False

    def __init__(self, owner: str):
        upload_files.check_owner(owner, "kaggle")
        os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")
        if not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # kagglehub logs to it
                import kagglehub
        except ImportError as error:
            raise ImportError(
                "--hub=kaggle:… needs kagglehub: run tools/setup publish"
            ) from error
        self._library = kagglehub
        self.owner = owner

    def handles(self, pair: pairs.Pair) -> list[str]:
        return [f"{self._variation(model)}/{model.version}" for model in pair.models]

    def _variation(self, model: pairs.ExportedModel) -> str:
        parts = (self.owner, _slug(model.arch), _FRAMEWORK, _slug(model.kind))
        return "/".join(parts)

    def has(self, pair: pairs.Pair) -> bool:
        """See `upload_files.Destination`."""
        with _connection_errors():
            published = [self._has(model) for model in pair.models]  # each may raise
        return all(published)

    def _has(self, model: pairs.ExportedModel) -> bool:
        """Checks whether a model is published.

        Raises:
          ValueError: it is published with another manifest, or Kaggle would give it
            another version number.
        """
        latest = self._latest_version(model)
        if model.version > latest + 1:
            raise ValueError(
                f"Kaggle numbers versions itself: the next version of "
                f"{self._variation(model)} is {latest + 1}, not {model.version}."
            )
        if model.version > latest:
            return False
        handle = f"{self._variation(model)}/{model.version}"
        with tempfile.TemporaryDirectory() as folder:
            # The manifest has the hashes of all other files.
            path = self._library.model_download(
                handle, str(manifest.MANIFEST), output_dir=folder
            )
            published_manifest = pathlib.Path(path).read_bytes()
        if published_manifest != (model.folder / manifest.MANIFEST).read_bytes():
            raise ValueError(
                f"{handle} is already published with a different {manifest.MANIFEST}, "
                f"and a published version can't change: export with "
                f"--version={latest + 1}."
            )
        return True

    def _latest_version(self, model: pairs.ExportedModel) -> int:
        from kagglehub import clients, exceptions
        from kagglesdk.models.types import model_api_service as messages

        request = messages.ApiGetModelInstanceRequest()
        self._set_variation(request, model)
        try:
            with clients.build_kaggle_client() as client:
                models = client.models.model_api_client
                instance = exceptions.handle_call(
                    lambda: models.get_model_instance(request)
                )
        except exceptions.KaggleApiHTTPError as error:
            # Kaggle answers 403 for models that do not exist, to hide which ones do.
            if error.response is not None and error.response.status_code in (403, 404):
                return 0
            raise
        return instance.version_number

    def _set_variation(self, request: typing.Any, model: pairs.ExportedModel) -> None:
        """Sets the variation that a request is for."""
        from kagglehub import handle

        parts = handle.parse_model_handle(self._variation(model))
        request.owner_slug = parts.owner
        request.model_slug = parts.model
        request.instance_slug = parts.variation
        request.framework = parts.framework_enum()

    def refresh(self) -> None:
        """Does nothing: the hub makes its own pages."""

    def pack(
        self, pair: pairs.Pair, documents: upload_files.Documents, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """See `upload_files.Destination`; of the metadata, only the fields are sent."""
        uploads = []
        for model, handle in zip(pair.models, self.handles(pair), strict=True):
            for name, path in model.files().items():
                uploads.append(upload_files.upload_file(f"{handle}/{name}", path))
            metadata = upload_files.documents_below(_DOCUMENTS, documents[model.kind])
            if _INSTANCE in metadata:
                content = metadata[_INSTANCE]
                file = upload_files.write_file(_INSTANCE, content, scratch / model.kind)
                target = f"{self._variation(model)}#{_INSTANCE}"
                uploads.append(upload_files.upload_file(target, file.source))
        return uploads

    def publish(self, pair: pairs.Pair, documents: upload_files.Documents) -> None:
        """Sends the models that are not published; updates the text of their pages."""
        with _connection_errors():
            for model in pair.models:
                files = upload_files.documents_below(_DOCUMENTS, documents[model.kind])
                metadata = json.loads(files.get(_INSTANCE, b"{}"))
                model.files()  # raises if a file must not be sent
                if not self._has(model):
                    self._library.model_upload(
                        self._variation(model),
                        str(model.folder),
                        license_name=metadata.get("licenseName"),
                        version_notes=f"version {model.version}, sha256 {model.sha256}",
                    )
                if metadata:
                    self._describe(model, metadata)

    def _describe(
        self, model: pairs.ExportedModel, metadata: Mapping[str, typing.Any]
    ) -> None:
        """Sets the text of a variation's page, which all its versions share."""
        from google.protobuf import field_mask_pb2
        from kagglehub import clients, exceptions
        from kagglesdk.models.types import model_api_service as messages

        request = messages.ApiUpdateModelInstanceRequest()
        self._set_variation(request, model)
        fields = {
            field: metadata[name] for name, field in _FIELDS.items() if name in metadata
        }
        for name, value in fields.items():
            setattr(request, name, value)
        request.update_mask = field_mask_pb2.FieldMask(paths=sorted(fields))
        with clients.build_kaggle_client() as client:
            models = client.models.model_api_client
            exceptions.handle_mutate_call(lambda: models.update_model_instance(request))


def _slug(name: str) -> str:
    return name.replace("_", "-").replace(".", "-")


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Converts errors of the library to `ConnectionError`; sends stdout to stderr."""
    import requests
    from kagglehub import exceptions

    errors = (
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.UnauthenticatedError,
        requests.RequestException,
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except errors as error:
        raise ConnectionError(f"Kaggle: {error}; run the command again.") from error

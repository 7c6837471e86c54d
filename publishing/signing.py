"""Signs files of a hub, and verifies signatures, with OpenSSF's model-signing library.

A signature is a Sigstore bundle over paths in the hub and the SHA-256 of each file. It
was made with a private key, or by Sigstore for an identity, such as an e-mail address.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import re
import tempfile
import typing
from collections.abc import Iterator, Mapping

from publishing import identities

if typing.TYPE_CHECKING:
    from model_signing import hashing

TOKEN = "SIGSTORE_ID_TOKEN"
_MAX_SIGNATURE = 1 << 20  # bytes

Files = Mapping[str, str]  # SHA-256 by path in the hub


class Signer(typing.Protocol):
    """Signs files. It may know its identity only after the first signature."""

    kind: str
    identity: identities.Identity | None

    def sign(self, files: Files) -> bytes:
        """Returns a signature.

        Raises:
          ValueError: it can't be made.
        """


class KeySigner:
    """Signs with a private key.

    Args:
      path: PEM file of an elliptic-curve key.
      password: of the key, if it is encrypted.

    Raises:
      ValueError: the file has no key that signs.
      ImportError: model-signing is not installed.
    """

    kind = identities.KEY

    def __init__(self, path: pathlib.Path, password: str = "") -> None:
        identities.check_library()
        from cryptography.hazmat.primitives import serialization
        from model_signing import signing

        data = identities.read_key(path, "PRIVATE KEY")
        # The library's types say str; it hands the value to cryptography, as it is.
        is_encrypted = b"ENCRYPTED" in data
        secret: typing.Any = (is_encrypted and password.encode()) or None
        try:
            key = serialization.load_pem_private_key(data, secret)
        except TypeError as error:
            raise ValueError(
                f"{path} is encrypted: give its password in the variable "
                f"{identities.PASSWORD} ({identities.NEW_PASSWORD} for the key of "
                "--rotate_key)."
            ) from error
        except Exception as error:  # cryptography documents no common class
            problem = "wrong password or damaged" if secret else "damaged"
            raise ValueError(
                f"{path} can't be read as a private key: {problem}."
            ) from error
        self.identity: identities.Identity | None = identities.key_identity(
            key.public_key(), path
        )
        self._config = signing.Config().use_elliptic_key_signer(
            private_key=path, password=secret
        )

    def sign(self, files: Files) -> bytes:
        """See `Signer`."""
        return _sign(self._config, files)


class SigstoreSigner:
    """Signs for an identity that Sigstore confirms, which needs a network.

    The identity is that of the token in the variable `TOKEN`, or else of a CI job, or
    else Sigstore asks for it in a browser.
    """

    kind = identities.SIGSTORE

    def __init__(self) -> None:
        identities.check_library()
        self.identity: identities.Identity | None = None

    def sign(self, files: Files) -> bytes:
        """See `Signer`."""
        from model_signing import signing

        with _reaching_sigstore():
            config = signing.Config().use_sigstore_signer(
                identity_token=os.environ.get(TOKEN) or None,
                use_ambient_credentials=True,
            )
            signature = _sign(config, files)
        identity = identities.sigstore_identity(signature)
        if self.identity not in (None, identity):
            raise ValueError(
                f"Sigstore confirmed two identities: {self.identity}; {identity}."
            )
        self.identity = identity
        return signature


class Verifier:
    """Verifies signatures of one identity.

    Args:
      identity: whose signatures are valid.

    Raises:
      ImportError: model-signing is not installed.
      ValueError: Sigstore can't be reached.
    """

    def __init__(self, identity: identities.Identity) -> None:
        identities.check_library()
        from model_signing import verifying

        self.identity = identity
        self._config = verifying.Config()
        if identity.kind == identities.KEY:
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, "key.pem")
                path.write_bytes(identity.content)
                self._config.use_elliptic_key_verifier(public_key=path)
        else:
            fields = json.loads(identity.content)
            with _reaching_sigstore():
                self._config.use_sigstore_verifier(
                    identity=fields["identity"], oidc_issuer=fields["issuer"]
                )

    def problem(self, signature: pathlib.Path, files: Files) -> str:
        """Describes why a signature is not this identity's, for exactly these files.

        Returns:
          An empty string if it is.
        """
        try:
            bundle = _read_bundle(signature)
        except OSError as error:
            return f"{error.strerror}"
        except (ValueError, RecursionError):
            return "is damaged: it is not a signature"
        signer = _key_hint(bundle)
        if self.identity.kind == identities.KEY and signer != self.identity.id:
            of = f"key {signer}" if signer else "no key"
            return f"is a signature of {of}, not of {self.identity}"
        try:
            self._config.set_hashing_config(_known_hashes(files))
            with contextlib.redirect_stdout(None):
                self._config.verify(pathlib.Path(), signature)
        except Exception as error:  # the library documents no common class
            if "Signature mismatch" in str(error):
                return _difference(bundle, files)
            return f"is not a valid signature of {self.identity}"
        return ""


def _sign(config: typing.Any, files: Files) -> bytes:
    config.set_hashing_config(_known_hashes(files))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "signature")
        config.sign(pathlib.Path("hub"), path)
        return path.read_bytes()


def _known_hashes(files: Files) -> hashing.Config:
    """Returns a configuration that takes these hashes instead of reading any file."""
    from model_signing import hashing
    from model_signing import manifest as signed_manifest

    library: typing.Any = hashing  # which exports no name for digests

    class KnownHashes(hashing.Config):
        def hash(
            self,
            model_path: hashing.PathLike,
            *,
            files_to_hash: typing.Any = None,
        ) -> signed_manifest.Manifest:
            digest = library.hashing.Digest
            items = [
                signed_manifest.FileManifestItem(
                    path=pathlib.PurePosixPath(path),
                    digest=digest("sha256", bytes.fromhex(sha256)),
                )
                for path, sha256 in files.items()
            ]
            kind = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
            serialization = signed_manifest.SerializationType.from_args(kind)
            return signed_manifest.Manifest("hub", items, serialization)

    return KnownHashes()


@contextlib.contextmanager
def _reaching_sigstore() -> Iterator[None]:
    """Raises one ValueError for whatever goes wrong with Sigstore's servers."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # of sigstore, tuf, requests, urllib3 …
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"Sigstore did not answer as needed: {problem[:300]}. It needs a network; "
            "--private_key=FILE signs without one."
        ) from error


def _read_bundle(path: pathlib.Path) -> typing.Any:
    if path.is_symlink() or not path.is_file():
        raise FileNotFoundError(2, "is not a regular file")
    if path.stat().st_size > _MAX_SIGNATURE:
        raise ValueError(f"{path} is too large for a signature")
    return json.loads(path.read_text(encoding="utf-8"))


def _key_hint(bundle: typing.Any) -> str:
    """Returns the id of the key that a signature names; empty if it names none."""
    try:
        hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    except (KeyError, TypeError):
        return ""
    return hint if isinstance(hint, str) and re.fullmatch("[0-9a-f]{64}", hint) else ""


def _difference(bundle: typing.Any, files: Files) -> str:
    """Describes how the files that a signature covers differ from `files`."""
    try:
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        resources = payload["predicate"]["resources"]
        signed = {str(item["name"]): str(item["digest"]) for item in resources}
    except (ValueError, KeyError, TypeError):
        return "is a signature of something else"
    if not signed.keys() & files.keys():
        return f"is a signature of other files, such as {min(signed, default='none')}"
    for name in sorted(files.keys() - signed.keys()):
        return f"does not cover {name}"
    for name in sorted(signed.keys() - files.keys()):
        return f"covers {name}, which does not belong to this version"
    for name in sorted(files):
        if files[name] != signed[name]:
            return f"is a signature of other contents of {name}"
    return "is a signature of something else"

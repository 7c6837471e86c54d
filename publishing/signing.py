"""Signs files of a hub, and verifies signatures, with OpenSSF's model-signing library.

A signature is a Sigstore bundle over paths in the hub and the SHA-256 of each file. It
was made with a private key, or by Sigstore for an identity, such as an e-mail address.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import stat
import tempfile
import typing
from collections.abc import Iterator, Mapping

from exporters import manifest

if typing.TYPE_CHECKING:
    from model_signing import hashing

FOLDER = "signing"  # of a hub: signers and the signature of the index
PASSWORD, NEW_PASSWORD = "HUB_KEY_PASSWORD", "HUB_NEW_KEY_PASSWORD"
TOKEN = "SIGSTORE_ID_TOKEN"
KEY, SIGSTORE = "key", "sigstore"
_MAX_KEY, _MAX_SIGNATURE = 64 << 10, 1 << 20  # bytes
_SUFFIXES = {KEY: ".pem", SIGSTORE: ".json"}
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # which the library takes
_ISSUER = "1.3.6.1.4.1.57264.1.8"  # of Sigstore's certificates
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")

Files = Mapping[str, str]  # SHA-256 by path in the hub


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """Who signs: a key or an identity of Sigstore.

    Attributes:
      kind: `KEY` or `SIGSTORE`.
      content: the file that a hub has of it: a public key as PEM, or JSON.
    """

    kind: str
    content: bytes

    @property
    def id(self) -> str:
        """SHA-256 of `content`. `sha256sum` prints it for the file of a public key."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def file(self) -> str:
        """Path of `content` in a hub."""
        return f"{FOLDER}/{self.id}{_SUFFIXES[self.kind]}"

    def __str__(self) -> str:
        if self.kind == KEY:
            return f"key {self.id}"
        fields = json.loads(self.content)
        return f"{fields['identity']}, as {fields['issuer']} says"


class Signer(typing.Protocol):
    """Signs files. It may know its identity only after the first signature."""

    kind: str
    identity: Identity | None

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

    kind = KEY

    def __init__(self, path: pathlib.Path, password: str = "") -> None:
        check_library()
        from cryptography.hazmat.primitives import serialization
        from model_signing import signing

        data = _read_key(path, "PRIVATE KEY")
        # The library's types say str; it hands the value to cryptography, as it is.
        is_encrypted = b"ENCRYPTED" in data
        secret: typing.Any = (is_encrypted and password.encode()) or None
        try:
            key = serialization.load_pem_private_key(data, secret)
        except TypeError as error:
            raise ValueError(
                f"{path} is encrypted: give its password in the variable "
                f"{PASSWORD} ({NEW_PASSWORD} for the key of --rotate_key)."
            ) from error
        except Exception as error:  # cryptography documents no common class
            problem = "wrong password or damaged" if secret else "damaged"
            raise ValueError(
                f"{path} can't be read as a private key: {problem}."
            ) from error
        self.identity: Identity | None = _key_identity(key.public_key(), path)
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

    kind = SIGSTORE

    def __init__(self) -> None:
        check_library()
        self.identity: Identity | None = None

    def sign(self, files: Files) -> bytes:
        """See `Signer`."""
        from model_signing import signing

        with _reaching_sigstore():
            config = signing.Config().use_sigstore_signer(
                identity_token=os.environ.get(TOKEN) or None,
                use_ambient_credentials=True,
            )
            signature = _sign(config, files)
        identity = sigstore_identity(signature)
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

    def __init__(self, identity: Identity) -> None:
        check_library()
        from model_signing import verifying

        self.identity = identity
        self._config = verifying.Config()
        if identity.kind == KEY:
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
        if self.identity.kind == KEY and signer != self.identity.id:
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


def check_library() -> None:
    """Raises ImportError if model-signing is not installed."""
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Signatures need the package model-signing: run tools/setup sign."
        ) from error


def public_key(path: pathlib.Path) -> Identity:
    """Reads the PEM file of a public key.

    Raises:
      ValueError: the file has no key that can sign models.
    """
    check_library()
    from cryptography.hazmat.primitives import serialization

    data = _read_key(path, "PUBLIC KEY")
    try:
        key = serialization.load_pem_public_key(data)
    except Exception as error:  # cryptography documents no common class
        raise ValueError(f"{path} can't be read as a public key: damaged.") from error
    return _key_identity(key, path)


def sigstore(identity: str, issuer: str) -> Identity:
    """Returns an identity that Sigstore confirms, such as an e-mail address."""
    record = manifest.to_json({"identity": identity, "issuer": issuer})
    return Identity(kind=SIGSTORE, content=record.encode())


def new_key(path: pathlib.Path, password: str) -> Identity:
    """Writes a new private key to `path`, and its public key to `path`.pub.

    Raises:
      FileExistsError: one of the files exists.
    """
    check_library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        encoding=serialization.Encoding.PEM,
        format=serialization.PrivateFormat.PKCS8,
        encryption_algorithm=serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption(),
    )
    identity = _key_identity(key.public_key(), path)
    public = path.with_name(f"{path.name}.pub")
    if os.path.lexists(public):
        raise FileExistsError(17, "File exists", str(public))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(private)
    public.write_bytes(identity.content)
    return identity


def identity_of(kind: str, content: bytes) -> Identity:
    """Checks the file that a hub has of an identity, and returns the identity.

    Raises:
      ValueError: it is not what `Identity.content` can be.
    """
    check_library()
    if kind == KEY:
        from cryptography.hazmat.primitives import serialization

        try:
            key = serialization.load_pem_public_key(content)
        except Exception as error:  # cryptography documents no common class
            raise ValueError("is not a public key") from error
        identity = _key_identity(key, pathlib.Path("it"))
    else:
        fields = json.loads(content)
        identity = sigstore(str(fields["identity"]), str(fields["issuer"]))
    if identity.content != content:
        raise ValueError("is not as tools/publish wrote it")
    return identity


def sigstore_identity(signature: bytes) -> Identity:
    """Reads the identity in the certificate of a Sigstore signature.

    Raises:
      ValueError: the signature has no such certificate.
    """
    from cryptography import x509

    try:
        material = json.loads(signature)["verificationMaterial"]
        raw = base64.b64decode(material["certificate"]["rawBytes"])
        certificate = x509.load_der_x509_certificate(raw)
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        (name,) = (
            *names.get_values_for_type(x509.RFC822Name),
            *names.get_values_for_type(x509.UniformResourceIdentifier),
        )
        extension = certificate.extensions.get_extension_for_oid(
            x509.ObjectIdentifier(_ISSUER)
        ).value
        issuer = typing.cast(x509.UnrecognizedExtension, extension).value
    except Exception as error:
        raise ValueError("Sigstore's signature has no identity.") from error
    return sigstore(name, _der_text(issuer))


def _der_text(data: bytes) -> str:
    """Decodes a DER string of up to 127 bytes, or else the bytes without a header."""
    if len(data) > 2 and data[0] == 0x0C and data[1] == len(data) - 2:
        data = data[2:]
    return data.decode()


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


def _read_key(path: pathlib.Path, wanted: str) -> bytes:
    """Reads a PEM file, and checks that it looks like a key of the wanted kind."""
    kind = wanted.lower()
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is not a regular file: give the PEM file of a key.")
    with open(descriptor, "rb") as file:
        data = file.read(_MAX_KEY + 1)
    if not data.strip():
        raise ValueError(f"{path} is empty: give the PEM file of a {kind}.")
    found = _kind_of_file(data)
    if len(data) > _MAX_KEY or found != f"a {kind}":
        raise ValueError(
            f"{path} is {found}: a {kind} in PEM format is needed, such as "
            "tools/publish --new_key=FILE makes."
        )
    return data


def _kind_of_file(data: bytes) -> str:
    """Returns what a file is, from the label of its first PEM block."""
    labels = [label.decode() for label in _PEM.findall(data)]
    label = next((label for label in labels if label != "EC PARAMETERS"), "")
    if "OPENSSH" in label or data.startswith((b"ssh-", b"ecdsa-", b"---- BEGIN SSH2")):
        return "an SSH key"
    if "PGP" in label:
        return "a PGP key"
    if "CERTIFICATE" in label:
        return "a certificate"
    if label.endswith("PUBLIC KEY"):
        return "a public key"
    if label.endswith("PRIVATE KEY"):
        return "a private key"
    return "not a key in PEM format"


def _key_identity(key: typing.Any, path: pathlib.Path) -> Identity:
    """Returns the identity of a public key.

    Raises:
      ValueError: the library does not sign with such keys.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else ""
    if curve not in _CURVES:
        kind = curve or type(key).__name__.removesuffix("PublicKey").strip("_")
        raise ValueError(
            f"{path} is a key of the kind {kind}: an elliptic-curve key of P-256, "
            "P-384 or P-521 is needed, such as tools/publish --new_key=FILE makes."
        )
    content = key.public_bytes(
        encoding=serialization.Encoding.PEM,
        format=serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    return Identity(kind=KEY, content=content)

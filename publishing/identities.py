"""Who signs a hub: keys, and identities that Sigstore confirms."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import stat
import typing

from exporters import manifest

FOLDER = "signing"  # of a hub: signers and the signature of the index
PASSWORD, NEW_PASSWORD = "HUB_KEY_PASSWORD", "HUB_NEW_KEY_PASSWORD"
KEY, SIGSTORE = "key", "sigstore"
_MAX_KEY = 64 << 10  # bytes
_SUFFIXES = {KEY: ".pem", SIGSTORE: ".json"}
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # which the library takes
_ISSUER = "1.3.6.1.4.1.57264.1.8"  # of Sigstore's certificates
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


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

    data = read_key(path, "PUBLIC KEY")
    try:
        key = serialization.load_pem_public_key(data)
    except Exception as error:  # cryptography documents no common class
        raise ValueError(f"{path} can't be read as a public key: damaged.") from error
    return key_identity(key, path)


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
    identity = key_identity(key.public_key(), path)
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
        identity = key_identity(key, pathlib.Path("it"))
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


def read_key(path: pathlib.Path, wanted: str) -> bytes:
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


def key_identity(key: typing.Any, path: pathlib.Path) -> Identity:
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

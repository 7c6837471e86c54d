"""The signature of a hub's index, and the entry `signing` that a signed index has.

{"sequence": number of the index, which grows with each change,
 "signers": [{"file": signing/ID.pem or signing/ID.json, "endorsed": …, "revoked": …}],
 "files": {PATH: {"size": …, "sha256": …}}}

The last signer signs the index, in signing/index-SHA256.sig: by its name, the
signature belongs to one index, so both change at once. The others are earlier signers,
whose signatures of models remain. An endorsed signer has a signature of its file by the
signer before it, signing/ID.sig.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
import typing
from collections.abc import Mapping

from exporters import manifest
from foundation import hub_paths
from publishing import hub_index, identities, signing, upload_files

MODEL_SIGNATURE = "model.sig"  # in the folder of a model's documents
SIGNER = "signer"  # key of a model's entry in the index: the id of its signer
_FILE = re.compile(rf"{identities.FOLDER}/([0-9a-f]{{64}})\.(pem|json)", re.ASCII)
_KINDS = {"pem": identities.KEY, "json": identities.SIGSTORE}
_INDEX_SIGNATURE = re.compile(
    rf"{identities.FOLDER}/index-[0-9a-f]{{64}}\.sig", re.ASCII
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignerEntry:
    """A signer in the index.

    Attributes:
      file: path of its identity in the hub.
      endorsed: whether the signer before it signed this file.
      revoked: whether its signatures do not count any more.
    """

    file: str
    endorsed: bool = False
    revoked: bool = False

    @property
    def id(self) -> str:
        return pathlib.PurePosixPath(self.file).stem

    @property
    def kind(self) -> str:
        return _KINDS[self.file.rpartition(".")[2]]

    @property
    def endorsement(self) -> str:
        """Path of the signature by the signer before it."""
        return f"{identities.FOLDER}/{self.id}.sig"

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{'key' if self.kind == identities.KEY else 'identity'} {self.id}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signing:
    """The entry `signing` of an index.

    Attributes:
      sequence: number of the index.
      signers: all signers; the last one signs the index.
      files: size and SHA-256 of the files of the signers, by path.
    """

    sequence: int
    signers: tuple[SignerEntry, ...]
    files: Mapping[str, manifest.JsonObject]

    @property
    def current(self) -> SignerEntry:
        return self.signers[-1]

    def find(self, signer_id: str) -> SignerEntry | None:
        """Returns the signer with this id."""
        return next((s for s in self.signers if s.id == signer_id), None)

    def to_json(self) -> manifest.JsonObject:
        return {
            "sequence": self.sequence,
            "signers": [dataclasses.asdict(signer) for signer in self.signers],
            "files": dict(sorted(self.files.items())),
        }

    def with_signer(
        self, identity: identities.Identity, endorsement: bytes = b""
    ) -> Change:
        """Adds the signer of the next index; returns its files, too."""
        entry = SignerEntry(file=identity.file, endorsed=bool(endorsement))
        files = {entry.file: identity.content}
        if endorsement:
            files[entry.endorsement] = endorsement
        new = dataclasses.replace(
            self,
            signers=(*self.signers, entry),
            files={**self.files, **{path: _sums(data) for path, data in files.items()}},
        )
        return new, files


class IdentityError(ValueError):
    """The file of a signer is not what its path says."""


Change = tuple[Signing, Mapping[str, bytes]]  # new signers, their files by path
UNSIGNED = Signing(sequence=0, signers=(), files={})


def parse(record: typing.Any) -> Signing:
    """Reads the entry `signing` of an index.

    Raises:
      ValueError: it is not what `Signing.to_json` returns.
    """
    try:
        signers = tuple(SignerEntry(**signer) for signer in record["signers"])
        parsed = Signing(
            sequence=record["sequence"], signers=signers, files=record["files"]
        )
        for signer in signers:
            if not _FILE.fullmatch(signer.file):
                raise ValueError(f"{signer.file!r} is not the file of a signer")
            if (type(signer.endorsed), type(signer.revoked)) != (bool, bool):
                raise ValueError("endorsed and revoked must be true or false")
        expected = {signer.file for signer in signers}
        expected |= {signer.endorsement for signer in signers if signer.endorsed}
        if len({signer.id for signer in signers}) != len(signers) or not signers:
            raise ValueError("each signer must be named once")
        if type(parsed.sequence) is not int or parsed.sequence < 1:
            raise ValueError("the sequence number must be 1 or more")
        if parsed.files.keys() != expected:
            raise ValueError("files and signers differ")
        if signers[0].endorsed or signers[-1].revoked:
            raise ValueError("nobody can endorse the first signer or revoke the last")
        if parsed.to_json() != record:
            raise ValueError("it has other keys")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is not as tools/publish writes it") from error
    return parsed


def is_signature_path(path: str) -> bool:
    """Checks whether a path is that of the signature of any index."""
    return bool(_INDEX_SIGNATURE.fullmatch(path))


def signed_files(text: str) -> dict[str, str]:
    """Returns what the signature of an index with this text covers."""
    return {hub_index.NAME: _sha256(text)}


def files_to_sign(entry: manifest.JsonObject, signature: str) -> dict[str, str]:
    """Returns what the signature of a model covers: all its files but the signature."""
    files = entry["files"].items()
    return {path: file["sha256"] for path, file in files if path != signature}


def sign_model(
    handle: str,
    entry: manifest.JsonObject,
    signer: signing.Signer,
    scratch: pathlib.Path,
) -> tuple[manifest.JsonObject, upload_files.UploadFile]:
    """Signs the files of a model; returns its new entry and the signature.

    Raises:
      ValueError: the signature can't be made, or the entry has files of something else:
        their signature could be that of an index or an endorsement.
    """
    target = model_signature(handle)
    if not _has_own_files(handle, entry):
        raise ValueError(
            f"{handle}: its index entry must have its archive, and other files in "
            f"{target.removesuffix(MODEL_SIGNATURE)} alone."
        )
    signature = signer.sign(files_to_sign(entry, target))
    upload = upload_files.write_file(target, signature, scratch)
    assert signer.identity
    sums = {"size": upload.size, "sha256": upload.sha256}
    files = {**entry["files"], target: sums}
    return {**entry, "files": files, SIGNER: signer.identity.id}, upload


def _has_own_files(handle: str, entry: manifest.JsonObject) -> bool:
    """Checks that a model has its archive, and no files outside its folder."""
    is_own = [hub_paths.is_of_model(path, handle) for path in entry["files"]]
    return handle.count("/") == 3 and handle in entry["files"] and all(is_own)


def model_signature(handle: str) -> str:
    """Returns the path of the signature of a model."""
    return f"{hub_paths.documents_folder(handle)}/{MODEL_SIGNATURE}"


def sign_index(
    index: hub_index.Index,
    signer: signing.Signer,
    scratch: pathlib.Path,
    change: Change | None = None,
) -> tuple[str, list[upload_files.UploadFile]]:
    """Writes and signs the next index of a hub.

    Args:
      index: new models and site, and the signers so far.
      signer: signs it; without `change` it is the current signer, or the first one.
      scratch: folder for new files.
      change: new signers and their files.

    Returns:
      The text of the index, its signature, and the files of new signers.

    Raises:
      ValueError: the signature can't be made.
    """
    if change is None and index.signing:
        change = parse(index.signing), {}
    elif change is None:
        assert signer.identity
        change = UNSIGNED.with_signer(signer.identity)
    entry, files = change
    entry = dataclasses.replace(entry, sequence=entry.sequence + 1)
    text = hub_index.to_text(index.models, index.site, entry.to_json())
    signature = signer.sign(signed_files(text))
    files = {**files, hub_index.signature_path(text): signature}
    uploads = [
        upload_files.write_file(target, content, scratch)
        for target, content in sorted(files.items())
    ]
    return text, uploads


def read_identity(hub: pathlib.Path, entry: SignerEntry) -> identities.Identity:
    """Reads the identity of a signer from a hub.

    Raises:
      IdentityError: it is missing or damaged.
    """
    path = hub / entry.file
    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError("is missing")
        with path.open("rb") as file:
            content = file.read(1 << 16)
        identity = identities.identity_of(entry.kind, content)
        if identity.id != entry.id:
            raise ValueError("is not the file that its name says")
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        problem = str(error) if isinstance(error, ValueError) else "is damaged"
        raise IdentityError(f"{entry.file}: {problem}") from error
    return identity


def check_signer(
    hub: pathlib.Path, index: hub_index.Index, signer: signing.Signer | None
) -> None:
    """Checks that `signer` may change a hub.

    Whoever signs an index vouches for all of it. So the index as it is must have the
    signature of the same signer.

    Raises:
      ValueError: a signed hub would get an unsigned index or another signer, or an
        index is not as it was signed.
    """
    if not index.signing:
        if signer and index.models:
            raise ValueError(
                f"{hub} has {len(index.models)} models and is not signed: sign all of "
                "it first, with the same flags and no EXPORT."
            )
        return
    current = parse(index.signing).current
    if signer is None:
        raise ValueError(
            f"{hub} is a signed hub, and takes no unsigned updates: use --sign with "
            f"{current.name}."
        )
    if signer.kind != current.kind or (
        signer.identity and signer.identity.id != current.id
    ):
        other = f"key {signer.identity.id}" if signer.identity else "Sigstore"
        raise ValueError(
            f"{hub} is signed by {current.name}, and takes no updates by {other}: "
            "--rotate_key changes the key."
        )
    text = (hub / hub_index.NAME).read_text(encoding="utf-8")
    identity = read_identity(hub, current)
    signer.identity = identity  # Sigstore's signer learns whom it has to sign for
    verifier = signing.Verifier(identity)
    path = hub_index.signature_path(text)
    if problem := verifier.problem(hub / path, signed_files(text)):
        raise ValueError(
            f"{hub / hub_index.NAME} was changed after it was signed ({path}: "
            f"{problem}): see tools/publish --verify."
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sums(content: bytes) -> manifest.JsonObject:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

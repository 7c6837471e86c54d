"""Checks the signatures of a hub, once the hashes of its files are checked."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Sequence

from exporters import manifest
from publishing import hub_index, identities, signed_index, signing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What the user knows of a hub from elsewhere.

    Attributes:
      signers: the publisher's keys or identities.
      sequence: number that the index must have reached.
    """

    signers: Sequence[identities.Identity] = ()
    sequence: int = 0

    def __bool__(self) -> bool:
        return bool(self.signers or self.sequence)


def check(
    folder: pathlib.Path,
    index: hub_index.Index,
    damaged: Collection[str],
    expected: Expected,
) -> tuple[list[str], list[str]]:
    """Checks all signatures of a hub.

    Args:
      folder: of the hub.
      index: its index.
      damaged: files that have other hashes than the index says.
      expected: what the hub must agree with.

    Returns:
      Findings and notes, a line each.

    Raises:
      ImportError: the hub is signed, and model-signing is not installed.
      ValueError: Sigstore can't be reached.
    """
    if not index.signing:
        if expected:
            return [f"{hub_index.NAME}: is not signed"], []
        return [], ["not signed: whoever can write to the hub can change all of it"]
    try:
        entry = signed_index.parse(index.signing)
    except ValueError as error:
        return [f"{hub_index.NAME}: its entry 'signing' is damaged: {error}"], []
    findings = []
    verifiers = {}
    for signer in entry.signers:
        if signer.file in damaged:
            continue  # a finding already
        try:
            identity = signed_index.read_identity(folder, signer)
            verifiers[signer.id] = signing.Verifier(identity)
        except signed_index.IdentityError as error:
            findings.append(str(error))
    if problem := _index_problem(folder, index, entry, verifiers):
        findings.append(problem)
    endorsed, problems = _endorsements(folder, entry, verifiers, damaged)
    findings += problems
    for handle, model in sorted(index.models.items()):
        if problem := _model_problem(folder, handle, model, entry, verifiers, damaged):
            findings.append(problem)
    distrust, notes = _trust(entry, endorsed, verifiers, expected)
    findings += distrust
    if findings:
        return findings, []
    return [], [*notes, *_earlier_signers(index, entry)]


def _index_problem(
    folder: pathlib.Path,
    index: hub_index.Index,
    entry: signed_index.Signing,
    verifiers: dict[str, signing.Verifier],
) -> str:
    if not (folder / index.signature).exists():
        return f"{hub_index.NAME}: it was changed, or its signature was removed"
    verifier = verifiers.get(entry.current.id)
    if verifier is None:
        return f"{hub_index.NAME}: its signature can't be checked without its signer"
    text = (folder / hub_index.NAME).read_text(encoding="utf-8")
    path = folder / index.signature
    problem = verifier.problem(path, signed_index.signed_files(text))
    return f"{hub_index.NAME}: its signature {problem}" if problem else ""


def _endorsements(
    folder: pathlib.Path,
    entry: signed_index.Signing,
    verifiers: dict[str, signing.Verifier],
    damaged: Collection[str],
) -> tuple[set[str], list[str]]:
    """Returns the ids of signers that the signer before them endorsed, and findings."""
    endorsed, findings = set(), []
    for before, signer in zip(entry.signers, entry.signers[1:], strict=False):
        if not signer.endorsed or signer.endorsement in damaged:
            continue
        verifier = verifiers.get(before.id)
        if verifier is None:
            continue  # a finding already
        files = {signer.file: signer.id}
        if problem := verifier.problem(folder / signer.endorsement, files):
            findings.append(f"{signer.endorsement}: {problem}")
        else:
            endorsed.add(signer.id)
    return endorsed, findings


def _model_problem(
    folder: pathlib.Path,
    handle: str,
    model: manifest.JsonObject,
    entry: signed_index.Signing,
    verifiers: dict[str, signing.Verifier],
    damaged: Collection[str],
) -> str:
    path = signed_index.model_signature(handle)
    if path in damaged:
        return ""  # a finding already
    signer = entry.find(str(model.get(signed_index.SIGNER, "")))
    if path not in model["files"] or signer is None:
        return f"{handle}: is not signed by a signer of this hub"
    verifier = verifiers.get(signer.id)
    if verifier is None:
        return ""  # a finding already
    files = signed_index.files_to_sign(model, path)
    problem = verifier.problem(folder / path, files)
    return f"{path}: {problem}" if problem else ""


def _trust(
    entry: signed_index.Signing,
    endorsed: set[str],
    verifiers: dict[str, signing.Verifier],
    expected: Expected,
) -> tuple[list[str], list[str]]:
    """Compares the signer of the index with those that the user expects."""
    current = verifiers.get(entry.current.id)
    if current is None:
        return [], []  # a finding already
    findings = []
    if entry.sequence < expected.sequence:
        findings.append(
            f"{hub_index.NAME}: is number {entry.sequence}, older than number "
            f"{expected.sequence}"
        )
    number = f"index {entry.sequence}"
    if not expected.signers:
        is_key = entry.current.kind == identities.KEY
        flags = "--public_key" if is_key else "--identity and --identity_provider"
        return findings, [
            f"signed by {current.identity} ({number})",
            "all signatures agree, but whether this is the publisher is not known: "
            f"compare it with what the publisher says elsewhere, or give {flags}",
        ]
    given = {identity.id for identity in expected.signers}
    trusted = ""  # the given signer from which endorsements lead to the current one
    for signer in entry.signers:
        if signer.id in given:
            trusted = "" if signer.revoked else signer.id
        elif signer.id not in endorsed or signer.revoked:
            trusted = ""
    if trusted:
        by = "" if trusted == entry.current.id else f", endorsed by key {trusted}"
        return findings, [f"signed by {current.identity}{by} ({number}): as expected"]
    revoked = [s.id for s in entry.signers if s.revoked and s.id in given]
    if revoked:
        reason = f"; the hub has revoked key {revoked[0]}"
    else:
        reason = ", which is neither the expected signer nor endorsed by it"
    findings.append(f"{hub_index.NAME}: is signed by {current.identity}{reason}")
    return findings, []


def _earlier_signers(index: hub_index.Index, entry: signed_index.Signing) -> list[str]:
    """Notes models whose signatures are those of earlier signers."""
    counts = collections.Counter(
        str(model.get(signed_index.SIGNER)) for model in index.models.values()
    )
    notes = []
    for signer in entry.signers[:-1]:
        if count := counts[signer.id]:
            models = f"{count} model{'s' if count > 1 else ''}"
            notes.append(
                f"{models} with signatures of the revoked {signer.name}: only the "
                "signature of the index counts"
                if signer.revoked
                else f"{models} with signatures of the earlier {signer.name}"
            )
    return notes

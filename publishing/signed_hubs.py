"""Changes who signs a hub in a folder: a first signature, a new key, a revoked key."""

from __future__ import annotations

import dataclasses
import pathlib

from foundation import atomic
from publishing import hub, hub_index, identities, signed_index, signing, verifying

_PUBLISHER = "none"  # nothing is published


def sign(folder: pathlib.Path, signer: signing.Signer) -> None:
    """Signs an unsigned hub: each model without a signature, and the index.

    Raises:
      ValueError: it is signed already, or has no models or other findings.
    """
    index = _verified_index(folder)
    if index.signing:
        current = signed_index.parse(index.signing).current
        raise ValueError(f"{folder} is signed already, by {current.name}.")
    if not index.models:
        raise ValueError(f"{folder} has no models to sign.")
    destination = hub.Hub(folder, _PUBLISHER, signer=signer)
    with atomic.locked(folder), atomic.staging_folder(folder) as scratch:
        entries = hub_index.read(folder)
        signatures = destination.sign_models(entries, scratch)
        assert signer.identity
        signers = signed_index.UNSIGNED.with_signer(signer.identity)
        destination.place(signatures, entries, scratch, signers)


def rotate(folder: pathlib.Path, old: signing.Signer, new: signing.KeySigner) -> None:
    """Replaces the key of a hub by a new one, which the old one endorses.

    Raises:
      ValueError: `old` is not the signer of the hub, or the hub has findings.
    """
    index = _verified_index(folder)
    _check_signed(folder, index)
    signed_index.check_signer(folder, index, old)
    entry = signed_index.parse(index.signing)
    identity = new.identity
    assert identity
    _check_new(entry, identity)
    endorsement = old.sign({identity.file: identity.id})
    _place(folder, index, new, entry.with_signer(identity, endorsement))


def revoke(folder: pathlib.Path, signer_id: str, signer: signing.Signer) -> None:
    """Revokes a signer, so that its signatures do not count any more.

    Args:
      folder: of the hub.
      signer_id: of the signer to revoke.
      signer: the current signer, to revoke an earlier one. Or a new key, to revoke the
        current signer, which can't endorse it: whoever knows the hub by the revoked
        signer has to learn the new key elsewhere.

    Raises:
      ValueError: there is no such signer, or the hub has findings.
    """
    index = _verified_index(folder)
    _check_signed(folder, index)
    entry = signed_index.parse(index.signing)
    found = [s for s in entry.signers if s.id.startswith(signer_id.lower())]
    if len(found) != 1 or len(signer_id) < 8:
        names = ", ".join(s.id for s in entry.signers)
        raise ValueError(
            f"--revoke_key={signer_id}: must be the fingerprint of one signer of "
            f"{folder}, or 8 or more of its first characters; there are {names}."
        )
    revoked = found[0]
    if revoked.revoked:
        raise ValueError(f"{revoked.name} is revoked already.")
    change = dataclasses.replace(
        entry,
        signers=tuple(
            dataclasses.replace(s, revoked=s.revoked or s is revoked)
            for s in entry.signers
        ),
    )
    if revoked is not entry.current:
        signed_index.check_signer(folder, index, signer)
        _place(folder, index, signer, (change, {}))
        return
    if signer.identity is None:
        raise ValueError("--revoke_key of the current signer needs --private_key.")
    _check_new(entry, signer.identity)
    _place(folder, index, signer, change.with_signer(signer.identity))


def _verified_index(folder: pathlib.Path) -> hub_index.Index:
    """Reads the index of a hub, all of which its signer is about to vouch for."""
    verification = verifying.verify(folder)
    if verification.findings:
        raise ValueError(
            f"{folder} is not as it was published: {verification.findings[0]}; see "
            "tools/publish --verify."
        )
    return hub_index.read_index(folder)


def _check_signed(folder: pathlib.Path, index: hub_index.Index) -> None:
    if not index.signing:
        raise ValueError(f"{folder} is not signed: tools/publish --sign signs it.")


def _check_new(entry: signed_index.Signing, identity: identities.Identity) -> None:
    if entry.find(identity.id):
        raise ValueError(f"{identity} is or was a signer of this hub: use a new key.")


def _place(
    folder: pathlib.Path,
    index: hub_index.Index,
    signer: signing.Signer,
    signers: signed_index.Change,
) -> None:
    destination = hub.Hub(folder, _PUBLISHER, signer=signer)
    with atomic.locked(folder), atomic.staging_folder(folder) as scratch:
        if hub_index.read_index(folder) != index:
            raise ValueError(f"{folder} has just changed: run the command again.")
        destination.place([], {}, scratch, signers)

"""Ways to tamper with a signed hub, and what verify answers to each.

`python -m tests.publishing.tampering` prints them as the table of docs/signatures.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil

from publishing import hub as hubs
from publishing import (
    hub_index,
    identities,
    releasing,
    signature_checks,
    signed_index,
    signing,
)
from tests.publishing import publisher
from tests.publishing.conftest import add_format, make_export

PUBLISHER = "image-model-zoo"
MODEL, OTHER = (f"{PUBLISHER}/{arch}/classification/1" for arch in ("toy", "toy2"))
FOLDER = f"{PUBLISHER}/models/toy/classification/1"
SIGNATURE = f"{FOLDER}/model.sig"
OTHER_SIGNATURE = f"{PUBLISHER}/models/toy2/classification/1/model.sig"
CHANGED = "index.json: it was changed, or its signature was removed"


@dataclasses.dataclass(frozen=True)
class Signed:
    """A signed hub, and what an attacker may have besides.

    Attributes:
      hub: index number 2, with the pairs toy and toy2.
      old: copy of the hub as number 1, with toy alone.
      key: file of the publisher's private key; the attacker's is beside it.
      signer: the publisher's.
      attacker: another key.
    """

    hub: pathlib.Path
    old: pathlib.Path
    key: pathlib.Path
    signer: signing.KeySigner
    attacker: signing.KeySigner

    def copy(self, folder):
        return dataclasses.replace(
            self,
            hub=pathlib.Path(shutil.copytree(self.hub, folder / "hub")),
            old=pathlib.Path(shutil.copytree(self.old, folder / "old")),
        )


class Pages:
    """Stub pages: a front page, a page of each model, one asset."""

    def __init__(self, folder):
        style = folder / "style.css"
        style.write_text("p { margin: 0 }\n")
        self.assets = {"styles": {"style.css": style}}

    def summary(self, model, report):
        return {"title": model.parent.name}

    def model_page(self, model, report, *, handle, **options):
        return f"<!doctype html><title>{handle}</title>\n"

    def front_page(self, models, *, assets):
        return f"<!doctype html><title>{len(models)} models</title>\n"


def documents(model, report, formats):
    return {**publisher.documents(model, report, formats), "bom.cdx.json": b"{}\n"}


def publish(export, hub, signer, pages=None):
    releasing.release(
        export,
        destination=hubs.Hub(hub, PUBLISHER, pages=pages, signer=signer),
        documents=documents,
        check=publisher.check,
        suite="of the tests",
        dry_run=False,
    )


def make_signed(folder):
    signers = []
    for name in ("publisher", "attacker"):
        identities.new_key(folder / name, "")
        signers.append(signing.KeySigner(folder / name))
    pages = Pages(folder)
    export = make_export(folder / "exports")
    add_format(export, "onnx")
    publish(export, folder / "hub", signers[0], pages)
    shutil.copytree(folder / "hub", folder / "old")
    other = make_export(folder / "exports", arch="toy2", content=b"other weights")
    publish(other, folder / "hub", signers[0], pages)
    return Signed(folder / "hub", folder / "old", folder / "publisher", *signers)


# How to tamper. What a function may use of the publisher's key is said in its row.


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_file(name):
    return lambda signed: flip(signed.hub / name)


def write_file(name, content):
    return lambda signed: (signed.hub / name).write_bytes(content)


def asset(signed):
    (path,) = signed.hub.glob("assets/*/style.css")
    flip(path)


def swap(first, second):
    def tamper(signed):
        one, two = (signed.hub / first).read_bytes(), (signed.hub / second).read_bytes()
        (signed.hub / first).write_bytes(two)
        (signed.hub / second).write_bytes(one)

    return tamper


def edit_index(signed, edit, *, signer=None, rehash=True):
    """Edits the index, with right hashes of all files; signs it only with `signer`."""
    index = hub_index.read_index(signed.hub)
    record = {"models": index.models, "site": index.site, "signing": index.signing}
    edit(record)
    for path, entry in _files(record).items() if rehash else ():
        data = (signed.hub / path).read_bytes()
        entry.update(size=len(data), sha256=hub_index.hashlib.sha256(data).hexdigest())
    text = hub_index.to_text(**record)
    (signed.hub / "index.json").write_text(text)
    if signer:
        (signed.hub / index.signature).unlink()
        signature = signer.sign(signed_index.signed_files(text))
        (signed.hub / hub_index.signature_path(text)).write_bytes(signature)


def _files(record):
    return {
        **hub_index.files(record["models"]),
        **record["site"],
        **record["signing"].get("files", {}),
    }


def with_hashes(tamper, *, by_publisher=False):
    """Tampers, and then writes the hashes of the files as they are into the index."""

    def tamper_and_hash(signed):
        tamper(signed)
        signer = signed.signer if by_publisher else None
        edit_index(signed, lambda record: None, signer=signer)

    return tamper_and_hash


def drop_model(signed):
    def edit(record):
        for path in record["models"].pop(OTHER)["files"]:
            (signed.hub / path).unlink()

    edit_index(signed, edit)


def drop_from_old(signed):
    old_index(signed)
    edit_index(signed, lambda record: record["models"].pop(MODEL))


def old_index(signed):
    """Restores the index before, with its signature."""
    index = hub_index.read_index(signed.hub)
    (signed.hub / index.signature).unlink()
    for name in ("index.json", hub_index.read_index(signed.old).signature):
        shutil.copy(signed.old / name, signed.hub / name)


def old_hub(signed):
    shutil.rmtree(signed.hub)
    shutil.copytree(signed.old, signed.hub)


def old_front_page(signed):
    shutil.copy(signed.old / "index.html", signed.hub / "index.html")


def unsign(signed):
    edit_index(signed, lambda record: record["signing"].clear())
    shutil.rmtree(signed.hub / "signing")


def remove_index_signature(signed):
    (signed.hub / hub_index.read_index(signed.hub).signature).unlink()


def sign_index_as_attacker(signed):
    edit_index(signed, lambda record: None, signer=signed.attacker)


def sign_all_as_attacker(signed):
    from publishing import signed_hubs

    def edit(record):
        record["signing"].clear()
        for handle, entry in record["models"].items():
            path = signed_index.model_signature(handle)
            (signed.hub / path).unlink()
            del entry["files"][path], entry["signer"]

    edit_index(signed, edit)
    shutil.rmtree(signed.hub / "signing")
    signed_hubs.sign(signed.hub, signed.attacker)


def add_attacker(*, endorsed):
    """Adds the attacker's key to the signers, and signs the index with it."""

    def tamper(signed):
        key = signed.attacker.identity
        proof = signed.attacker.sign({key.file: key.id}) if endorsed else b""

        def edit(record):
            entry = signed_index.parse(record["signing"])
            entry, files = entry.with_signer(key, proof)
            record["signing"] = entry.to_json()
            for path, content in files.items():
                (signed.hub / path).write_bytes(content)

        edit_index(signed, edit, signer=signed.attacker)

    return tamper


def replace_key_file(signed):
    path = signed.hub / signed.signer.identity.file
    path.write_bytes(signed.attacker.identity.content)


def replace_key(signed):
    replace_key_file(signed)
    edit_index(signed, lambda record: None, signer=signed.attacker)


def set_signing(rehash=True, **fields):
    return lambda signed: edit_index(
        signed, lambda record: record["signing"].update(fields), rehash=rehash
    )


def name_as_leftover(signed):
    (signed.hub / "evil.html").write_text("<script>")
    (signed.hub / ".publishing.json").write_text(json.dumps(["evil.html"]))


def truncate_signature(signed):
    path = signed.hub / SIGNATURE
    path.write_bytes(path.read_bytes()[:-20])


def encode_signature_again(signed):
    path = signed.hub / SIGNATURE
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


def sign_model(select, key="signer", *, by_publisher=True):
    """Signs other files for the model; the publisher's key signs the index."""

    def tamper(signed):
        entry = hub_index.read(signed.hub)[MODEL]
        files = select(signed_index.files_to_sign(entry, SIGNATURE))
        signature = getattr(signed, key).sign(files)
        (signed.hub / SIGNATURE).write_bytes(signature)
        signer = signed.signer if by_publisher else None
        edit_index(signed, lambda record: None, signer=signer)

    return tamper


def without_archive(files):
    return {path: sha256 for path, sha256 in files.items() if path != MODEL}


def with_another(files):
    return {**files, f"{FOLDER}/another": "0" * 64}


@dataclasses.dataclass(frozen=True)
class Row:
    """A way to tamper.

    Attributes:
      name: what is done.
      tamper: does it to a `Signed`.
      answers: what verify answers with the publisher's key; `…` stands for any text,
        and K, X for the fingerprints of the publisher's and the attacker's key.
      notes: what it notes if it finds nothing.
      expects: `key`; or `sequence`, also that the index is number 2; or `nothing`.
    """

    name: str
    tamper: object
    answers: tuple[str, ...]
    expects: str = "key"
    notes: tuple[str, ...] = ()

    def expected(self, signed):
        signers = (signed.signer.identity,) if self.expects != "nothing" else ()
        sequence = 2 if self.expects == "sequence" else 0
        return signature_checks.Expected(signers=signers, sequence=sequence)

    @staticmethod
    def patterns(answers, signed):
        keys = {"K": signed.signer.identity.id, "X": signed.attacker.identity.id}
        for answer in answers:
            text = re.sub(r"\b[KX]\b", lambda match: keys[match[0]], answer)
            yield ".*".join(map(re.escape, text.split("…")))


DIFFERENT = "was changed: SHA-256 …, published with …"
ROWS = [
    Row("a bit of an archive", flip_file(MODEL), (f"{MODEL}: {DIFFERENT}",)),
    Row(
        "an archive removed",
        lambda signed: (signed.hub / MODEL).unlink(),
        (f"{MODEL}: is missing",),
    ),
    Row(
        "two models' archives swapped",
        swap(MODEL, OTHER),
        tuple(f"{m}: has … bytes, was published with …" for m in (MODEL, OTHER)),
    ),
    Row(
        "a bit of the Markdown page",
        flip_file(f"{FOLDER}.md"),
        (f"{FOLDER}.md: {DIFFERENT}",),
    ),
    Row(
        "a script in a model's page",
        write_file(f"{FOLDER}/index.html", b"<script>"),
        (f"{FOLDER}/index.html: has 8 bytes, was published with …",),
    ),
    Row(
        "a bit of the report",
        flip_file(f"{FOLDER}/conformance.json"),
        (f"{FOLDER}/conformance.json: {DIFFERENT}",),
    ),
    Row(
        "a bit of the bill of materials",
        flip_file(f"{FOLDER}/bom.cdx.json"),
        (f"{FOLDER}/bom.cdx.json: {DIFFERENT}",),
    ),
    Row(
        "a bit of the ONNX archive",
        flip_file(f"{FOLDER}/formats/onnx.tar.gz"),
        (f"{FOLDER}/formats/onnx.tar.gz: {DIFFERENT}",),
    ),
    Row(
        "a bit of the front page",
        flip_file("index.html"),
        (f"index.html: {DIFFERENT}",),
    ),
    Row(
        "the front page of the index before",
        old_front_page,
        ("index.html: was changed: …",),
    ),
    Row("a bit of a style sheet", asset, (f"assets/…/style.css: {DIFFERENT}",)),
    Row(
        "a file added to a version",
        write_file(f"{FOLDER}/extra.html", b"x"),
        (f"{FOLDER}/extra.html: is not in the index",),
    ),
    Row(
        "a file added, as if by an interrupted publish",
        name_as_leftover,
        (
            ".publishing.json: is not in the index",
            "evil.html: is not in the index",
        ),
    ),
    Row(
        "a model's signature removed",
        lambda signed: (signed.hub / SIGNATURE).unlink(),
        (f"{SIGNATURE}: is missing",),
    ),
    Row(
        "a model's signature truncated",
        truncate_signature,
        (f"{SIGNATURE}: has … bytes, was published with …",),
    ),
    Row(
        "a model's signature as other JSON of the same values",
        encode_signature_again,
        (f"{SIGNATURE}: has … bytes, was published with …",),
    ),
    Row(
        "a bit of an archive, and its hash in the index",
        with_hashes(flip_file(MODEL)),
        (CHANGED, f"{SIGNATURE}: is a signature of other contents of {MODEL}"),
    ),
    Row(
        "two models' signatures swapped, and their hashes in the index",
        with_hashes(swap(SIGNATURE, OTHER_SIGNATURE)),
        (
            CHANGED,
            f"{SIGNATURE}: is a signature of other files, such as …",
            f"{OTHER_SIGNATURE}: is a signature of other files, such as …",
        ),
    ),
    Row(
        "a model's signature truncated, and its hash in the index",
        with_hashes(truncate_signature),
        (CHANGED, f"{SIGNATURE}: is damaged: it is not a signature"),
    ),
    Row(
        "100,000 brackets as a model's signature, and their hash in the index",
        with_hashes(write_file(SIGNATURE, b"[" * 100_000)),
        (CHANGED, f"{SIGNATURE}: is damaged: it is not a signature"),
    ),
    Row(
        "a model's signature by another key, and its hash in the index",
        sign_model(dict, "attacker", by_publisher=False),
        (CHANGED, f"{SIGNATURE}: is a signature of key X, not of key K"),
    ),
    Row("a model removed from the hub and its index", drop_model, (CHANGED,)),
    Row(
        "the index before, without one of its models",
        drop_from_old,
        (CHANGED, "…: is not in the index"),
    ),
    Row(
        "the index before, with its signature",
        old_index,
        ("index.html: …", "…: is not in the index"),
    ),
    Row(
        "the whole hub as it was before; the number is known",
        old_hub,
        ("index.json: is number 1, older than number 2",),
        "sequence",
    ),
    Row(
        "the whole hub as it was before",
        old_hub,
        (),
        notes=("signed by key K (index 1): as expected",),
    ),
    Row("a higher number of the index", set_signing(sequence=9), (CHANGED,)),
    Row(
        "an impossible number of the index",
        set_signing(sequence="9"),
        (
            "index.json: its entry 'signing' is damaged: the sequence number must be 1 "
            "or more",
        ),
    ),
    Row("the index's signature removed", remove_index_signature, (CHANGED,)),
    Row(
        "the index signed by another key",
        sign_index_as_attacker,
        ("index.json: its signature is a signature of key X, not of key K",),
    ),
    Row(
        "another key added, which signs the index",
        add_attacker(endorsed=False),
        (
            "index.json: is signed by key X, which is neither the expected signer nor "
            "endorsed by it",
        ),
    ),
    Row(
        "another key added, which endorses itself",
        add_attacker(endorsed=True),
        (
            "signing/X.sig: is a signature of key X, not of key K",
            "index.json: is signed by key X, which is neither the expected signer nor "
            "endorsed by it",
        ),
    ),
    Row(
        "all signatures replaced by those of another key",
        sign_all_as_attacker,
        (
            "index.json: is signed by key X, which is neither the expected signer nor "
            "endorsed by it",
        ),
    ),
    Row(
        "the same, without --public_key",
        sign_all_as_attacker,
        (),
        "nothing",
        ("signed by key X (index 1)", "all signatures agree, but whether this is …"),
    ),
    Row("all signatures removed", unsign, ("index.json: is not signed",)),
    Row(
        "all signatures removed, without --public_key",
        unsign,
        (),
        "nothing",
        ("not signed: whoever can write to the hub can change all of it",),
    ),
    Row(
        "another key in the file of the key",
        replace_key_file,
        (
            "signing/K.pem: was changed: …",
            "index.json: its signature can't be checked …",
        ),
    ),
    Row(
        "the same, with the hash in the index, which the other key signs",
        replace_key,
        (
            "signing/K.pem: is not the file that its name says",
            "index.json: its signature can't be checked without its signer",
        ),
    ),
    Row(
        "with the publisher's key: a signature without the archive",
        sign_model(without_archive),
        (f"{SIGNATURE}: does not cover {MODEL}",),
    ),
    Row(
        "with the publisher's key: a signature of one more file",
        sign_model(with_another),
        (f"{SIGNATURE}: covers {FOLDER}/another, which does not belong to this …",),
    ),
    Row(
        "with the publisher's key: an index with another key's signature of a model",
        sign_model(dict, "attacker"),
        (f"{SIGNATURE}: is a signature of key X, not of key K",),
    ),
    Row(
        "a bit of the index",
        flip_file("index.json"),
        ("…index.json is damaged: it is not what tools/publish wrote.",),
    ),
    Row(
        "100,000 brackets as the index",
        write_file("index.json", b"[" * 100_000),
        ("…index.json is damaged: it is not what tools/publish wrote.",),
    ),
    Row(
        "an impossible size of a file in the index",
        set_signing(files={"x": {"size": "1", "sha256": 2}}, rehash=False),
        ("…index.json is damaged: it is not what tools/publish wrote.",),
    ),
]


def table():
    """Returns the rows as a table in Markdown."""
    lines = ["| what was done | what verify answers |", "|---|---|"]
    short = {FOLDER: "DOCUMENTS", OTHER_SIGNATURE: "OTHER/model.sig", MODEL: "MODEL"}
    for row in ROWS:
        text = "; ".join(row.answers or ("as published", *row.notes))
        for long, name in {**short, OTHER: "OTHER"}.items():
            text = text.replace(long, name)
        lines.append(f"| {row.name} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")

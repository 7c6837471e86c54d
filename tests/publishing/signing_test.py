"""Signatures: who may publish to a signed hub, and what verify makes of tampering."""

import base64
import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from publishing import hub_index, identities, signature_checks, signed_index, verifying
from tests.publishing.conftest import contents, make_export

pytest.importorskip(
    "model_signing", reason="needs model-signing: tools/setup test brings it"
)

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from publishing import signed_hubs, signing
from tests.publishing import tampering

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs" / "signatures.md"


@pytest.fixture(scope="module")
def signed_once(tmp_path_factory):
    return tampering.make_signed(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def signed(signed_once, tmp_path):
    """Returns a signed hub that a test may change."""
    return signed_once.copy(tmp_path)


@pytest.fixture
def other(tmp_path):
    """Returns an export that the hub does not have."""
    return make_export(tmp_path / "exports", arch="toy3")


def key_of(signed):
    return f"--private_key={signed.key}"


def assert_refused(done, message):
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Tampering


@pytest.mark.parametrize("row", tampering.ROWS, ids=lambda row: row.name)
def test_verify_answers_tampering(signed, row):
    row.tamper(signed)
    verification = verifying.verify(signed.hub, row.expected(signed))
    for lines, answers in (
        (verification.findings, row.answers),
        (verification.notes, row.notes),
    ):
        patterns = list(row.patterns(answers, signed))
        for pattern in patterns:
            assert any(re.fullmatch(pattern, line) for line in lines), lines
        for line in lines:
            assert any(re.fullmatch(pattern, line) for pattern in patterns), line


def test_an_untouched_hub_has_no_findings(signed):
    for expects in ("key", "sequence", "nothing"):
        row = tampering.Row("nothing", None, (), expects)
        verification = verifying.verify(signed.hub, row.expected(signed))
        assert verification.findings == ()
        assert verification.models == 4
        assert f"key {signed.signer.identity.id}" in verification.notes[0]


def test_the_table_in_the_documentation_is_this_one():
    assert tampering.table() in DOCS.read_text(encoding="utf-8")


# Publishing


def test_the_tool_signs_and_verifies(export, publish, tmp_path):
    key, hub = tmp_path / "k.pem", tmp_path / "hub"
    done = publish(f"--new_key={key}")
    assert done.returncode == 0, done.stderr
    fingerprint = done.stdout.splitlines()[-1].removeprefix("fingerprint: ")
    assert key.stat().st_mode & 0o777 == 0o600
    done = publish(export, f"--hub={hub}", "--sign", f"--private_key={key}")
    assert done.returncode == 0, done.stderr
    done = publish("--verify", hub, f"--public_key={key}.pub", "--min_sequence=1")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[1:] == [
        f"signed by key {fingerprint} (index 1): as expected"
    ]
    done = publish("--verify", hub)
    assert done.returncode == 0
    assert "whether this is the publisher is not known" in done.stdout
    assert fingerprint in done.stdout


def test_a_fingerprint_is_the_sha256_of_the_public_key_file(signed_once):
    path = signed_once.key
    public = path.with_name(f"{path.name}.pub")
    done = subprocess.run(["sha256sum", public], capture_output=True, text=True)
    assert done.stdout.split()[0] == signed_once.signer.identity.id


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_keys_of_openssl_sign(export, publish, tmp_path):
    key = tmp_path / "k.pem"
    for command in commands_in_docs("openssl"):
        words = command.replace("hub.key", str(key)).split()
        subprocess.run(words, check=True, capture_output=True)
    hub = tmp_path / "hub"
    done = publish(export, f"--hub={hub}", "--sign", f"--private_key={key}")
    assert done.returncode == 0, done.stderr
    assert publish("--verify", hub, f"--public_key={key}.pub").returncode == 0


def commands_in_docs(program):
    text = DOCS.read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line.strip() for line in text.splitlines()]
    commands = [line for line in lines if line.startswith(f"{program} ")]
    assert commands
    return commands


def test_the_librarys_own_command_verifies(signed_once, tmp_path):
    """Runs the commands in the documentation, for a model and for the index."""
    signed = signed_once.copy(tmp_path)
    path = signed.key
    program = pathlib.Path(sys.executable).with_name("model_signing")
    commands = commands_in_docs("model_signing")
    assert len(commands) == 2
    for command in commands:
        words = (
            command.replace("hub.key.pub", f"{path}.pub")
            .replace("PUBLISHER/models/ARCH/KIND/VERSION", tampering.FOLDER)
            .replace("index-SHA256.sig", hub_index.read_index(signed.hub).signature[8:])
            .replace("HUB", str(signed.hub))
            .split()
        )
        done = subprocess.run([program, *words[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    tampering.flip(signed.hub / "index.json")
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Signature mismatch" in done.stderr
    assert "index.json" in done.stderr


def test_a_signature_covers_all_other_files_of_its_version(signed_once):
    for handle, entry in hub_index.read(signed_once.hub).items():
        path = signed_index.model_signature(handle)
        bundle = json.loads((signed_once.hub / path).read_text())
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        resources = payload["predicate"]["resources"]
        covered = {item["name"]: item["digest"] for item in resources}
        expected = {name: file["sha256"] for name, file in entry["files"].items()}
        assert expected.pop(path)
        assert covered == expected
        assert handle in covered


def test_a_signed_hub_refuses_unsigned_updates(signed, other, publish):
    before = contents(signed.hub)
    done = publish(other, f"--hub={signed.hub}")
    assert_refused(done, "is a signed hub, and takes no unsigned updates")
    assert "all clauses" not in done.stderr  # before the suite runs
    assert contents(signed.hub) == before


def test_keys_are_checked_even_if_all_is_published(signed, tmp_path, publish):
    export = make_export(tmp_path / "exports", arch="toy3")
    flag = f"--hub={signed.hub}"
    assert publish(export, flag, "--sign", key_of(signed)).returncode == 0
    assert publish(export, flag, "--sign", key_of(signed)).returncode == 0
    other_key = f"--private_key={signed.key.with_name('attacker')}"
    done = publish(export, flag, "--sign", other_key)
    assert_refused(done, f"takes no updates by key {signed.attacker.identity.id}")
    flag = f"--hub={tmp_path / 'unsigned'}"
    assert publish(export, flag).returncode == 0
    done = publish(export, flag, "--sign", key_of(signed))
    assert_refused(done, "is not signed: sign all of it first, with the same flags")


def test_a_signed_hub_refuses_an_unsigned_front_page(signed, tmp_path):
    pages = tampering.Pages(tmp_path)
    pages.front_page = lambda models, *, assets: "<!doctype html><title>new</title>\n"
    before = contents(signed.hub)
    hub = tampering.hubs.Hub(signed.hub, tampering.PUBLISHER, pages)
    with pytest.raises(ValueError, match="takes no unsigned updates"):
        hub.refresh()
    assert contents(signed.hub) == before
    hub.signer = signed.signer
    hub.refresh()
    assert contents(signed.hub) != before
    assert verifying.verify(signed.hub).findings == ()


def test_a_signed_hub_refuses_another_key(signed, other, publish):
    before = contents(signed.hub)
    flag = f"--private_key={signed.key.with_name('attacker')}"
    done = publish(other, f"--hub={signed.hub}", "--sign", flag)
    assert_refused(done, f"takes no updates by key {signed.attacker.identity.id}")
    assert contents(signed.hub) == before


@pytest.mark.parametrize(
    "tamper", [tampering.drop_model, tampering.set_signing(sequence=5)]
)
def test_a_tampered_index_is_not_signed_again(signed, other, publish, tamper):
    tamper(signed)
    before = contents(signed.hub)
    done = publish(other, f"--hub={signed.hub}", "--sign", key_of(signed))
    assert_refused(done, "index.json was changed after it was signed")
    assert contents(signed.hub) == before


def test_an_unsigned_hub_is_signed_as_a_whole_first(hub, other, signed_once, publish):
    flags = (f"--hub={hub}", "--sign", key_of(signed_once))
    assert_refused(publish(other, *flags), "has 2 models and is not signed")
    done = publish(*flags)
    assert done.returncode == 0, done.stderr
    assert publish(other, *flags).returncode == 0
    expected = tampering.Row("", None, (), "key").expected(signed_once)
    verification = verifying.verify(hub, expected)
    assert verification.findings == ()
    assert verification.models == 4
    assert_refused(publish(*flags), "is signed already, by key")


def test_a_hub_with_findings_is_not_signed(hub, signed_once, publish):
    tampering.flip(hub / tampering.MODEL)
    before = contents(hub)
    done = publish(f"--hub={hub}", "--sign", key_of(signed_once))
    assert_refused(done, "is not as it was published: image-model-zoo/toy/")
    assert contents(hub) == before


@pytest.mark.parametrize(
    "handle", ["a/b/c/1", "signing/{id}.pem"], ids=["handle", "path"]
)
def test_a_key_is_not_endorsed_as_a_model(hub, signed_once, handle):
    """An unsigned index names a key as a model, for the publisher to sign it."""
    key = signed_once.attacker.identity
    (hub / "signing").mkdir()
    (hub / key.file).write_bytes(key.content)
    index = hub_index.read_index(hub)
    models = index.models
    sums = {"size": len(key.content), "sha256": key.id}
    entry = next(iter(models.values()))
    models[handle.format(id=key.id)] = {**entry, "files": {key.file: sums}}
    (hub / "index.json").write_text(hub_index.to_text(models, index.site))
    assert verifying.verify(hub).findings == ()
    before = contents(hub)
    with pytest.raises(ValueError, match="its index entry must have its archive"):
        signed_hubs.sign(hub, signed_once.signer)
    assert contents(hub) == before


class BrokenSigner:
    """Signs two models and fails for the index."""

    kind = identities.KEY

    def __init__(self, signer):
        self.identity, self._signer, self._left = signer.identity, signer, 2

    def sign(self, files):
        self._left -= 1
        if self._left < 0:
            raise ValueError("the device was unplugged")
        return self._signer.sign(files)


@pytest.mark.parametrize("first", [True, False])
def test_nothing_is_published_if_the_index_is_not_signed(
    signed, other, tmp_path, first
):
    hub = tmp_path / "new" if first else signed.hub
    before = contents(hub)
    with pytest.raises(ValueError, match="the device was unplugged"):
        tampering.publish(other, hub, BrokenSigner(signed.signer))
    assert contents(hub) == before


@pytest.mark.parametrize("moment", ["before the index", "after it"])
def test_an_interrupted_publish_leaves_a_verified_hub(
    signed, other, monkeypatch, moment
):
    from foundation import atomic

    move, moved = atomic.move_into_place, []

    def stop(source, target):
        if moment == "after it" and target.name == "index.json":
            move(source, target)
        if target.name == "index.json":
            raise SystemExit
        moved.append(target)
        move(source, target)

    monkeypatch.setattr(atomic, "move_into_place", stop)
    with contextlib.suppress(SystemExit):
        tampering.publish(other, signed.hub, signed.signer)
    assert moved
    expected = tampering.Row("", None, (), "key").expected(signed)
    verification = verifying.verify(signed.hub, expected)
    assert verification.findings == ()
    assert verification.models == (6 if moment == "after it" else 4)


@pytest.mark.parametrize("moment", ["before the index", "after it"])
def test_a_killed_publish_leaves_a_signed_index(signed, other, monkeypatch, moment):
    """As `kill -9` would: nothing is cleaned up until the next publish."""
    from foundation import atomic

    def stop(source, target):
        if target.name != "index.json" or moment == "after it":
            move(source, target)
        if target.name == "index.json":
            raise SystemExit

    move = atomic.move_into_place
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "move_into_place", stop)
        clear = [tampering.hubs.Hub._clear, lambda hub: None]
        patch.setattr(tampering.hubs.Hub, "_clear", lambda hub: clear.pop(0)(hub))
        with pytest.raises(SystemExit):
            tampering.publish(other, signed.hub, signed.signer)
    verification = verifying.verify(signed.hub)
    assert verification.findings == ()
    assert verification.models == (6 if moment == "after it" else 4)
    old = hub_index.read_index(signed.hub).signature
    left = [name for name in verification.leftovers if name.startswith("signing/")]
    assert len(left) == 1
    assert left != [old]
    another = make_export(other.parent, arch="toy4")
    tampering.publish(another, signed.hub, signed.signer)
    expected = tampering.Row("", None, (), "key").expected(signed)
    verification = verifying.verify(signed.hub, expected)
    assert verification.findings == ()


def test_the_cleanup_list_names_files_of_the_hub_only(signed, other, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (signed.hub / "link").symlink_to(tmp_path)
    targets = ["../mine", str(tmp_path / "mine"), "link/mine", 7]
    (signed.hub / ".publishing.json").write_text(json.dumps(targets))
    tampering.publish(other, signed.hub, signed.signer)
    assert (tmp_path / "mine").read_text() == "mine"


def test_nothing_is_published_through_a_link(signed, other, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (signed.hub / tampering.PUBLISHER / "toy3").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is reached by a link. Move it away"):
        tampering.publish(other, signed.hub, signed.signer)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (signed.hub / ".publishing.json").exists()


def test_the_server_serves_signatures(signed_once):
    from publishing import serving

    server = serving.Server(("127.0.0.1", 0), signed_once.hub, None)
    try:
        index = hub_index.read_index(signed_once.hub)
        key = signed_once.signer.identity.file
        for path in (tampering.SIGNATURE, index.signature, key):
            opened = server.find(path.split("/"))
            assert opened, path
            with opened.file:
                assert opened.file.read() == (signed_once.hub / path).read_bytes()
        assert server.find(["signing", "index-0.sig"]) is None
    finally:
        server.server_close()


# Other keys


@pytest.fixture
def new_key(tmp_path):
    identities.new_key(tmp_path / "new.key", "secret")
    return tmp_path / "new.key"


def expecting(*paths):
    signers = [
        identities.public_key(path.with_name(f"{path.name}.pub")) for path in paths
    ]
    return signature_checks.Expected(signers=signers)


def test_a_new_key_is_endorsed_by_the_old_one(signed, new_key, other, publish):
    old_key = signed.key
    done = publish(
        f"--hub={signed.hub}",
        key_of(signed),
        f"--rotate_key={new_key}",
        HUB_NEW_KEY_PASSWORD="secret",
    )
    assert done.returncode == 0, done.stderr
    new = signing.KeySigner(new_key, "secret")
    tampering.publish(other, signed.hub, new)
    old_id = signed.signer.identity.id
    for key, endorsed in ((old_key, f", endorsed by key {old_id}"), (new_key, "")):
        verification = verifying.verify(signed.hub, expecting(key))
        assert verification.findings == ()
        assert verification.notes == (
            f"signed by {new.identity}{endorsed} (index 4): as expected",
            f"4 models with signatures of the earlier key {old_id}",
        )
    flags = (f"--hub={signed.hub}", "--sign", key_of(signed))
    another = make_export(other.parent, arch="toy4")
    assert_refused(publish(another, *flags), "takes no updates by key")


def test_an_earlier_key_is_revoked(signed, new_key, publish):
    new = signing.KeySigner(new_key, "secret")
    old_id = signed.signer.identity.id
    signed_hubs.rotate(signed.hub, signed.signer, new)
    done = publish(
        f"--hub={signed.hub}",
        f"--private_key={new_key}",
        f"--revoke_key={old_id[:12]}",
        HUB_KEY_PASSWORD="secret",
    )
    assert done.returncode == 0, done.stderr
    verification = verifying.verify(signed.hub, expecting(new_key))
    assert verification.findings == ()
    assert verification.notes[1] == (
        f"4 models with signatures of the revoked key {old_id}: only the signature of "
        "the index counts"
    )
    (finding,) = verifying.verify(signed.hub, expecting(signed.key)).findings
    assert finding.endswith(f"the hub has revoked key {old_id}")


def test_a_lost_key_is_replaced_and_must_be_announced(signed, new_key):
    new = signing.KeySigner(new_key, "secret")
    signed_hubs.revoke(signed.hub, signed.signer.identity.id, new)
    assert verifying.verify(signed.hub, expecting(new_key)).findings == ()
    (finding,) = verifying.verify(signed.hub, expecting(signed.key)).findings
    assert "the hub has revoked key" in finding


def test_a_revoked_key_endorses_nobody(signed, new_key, tmp_path):
    """The chain first -> second -> third breaks when the second is revoked."""
    second = signing.KeySigner(new_key, "secret")
    identities.new_key(tmp_path / "third", "")
    third = signing.KeySigner(tmp_path / "third")
    signed_hubs.rotate(signed.hub, signed.signer, second)
    signed_hubs.rotate(signed.hub, second, third)
    first_key = expecting(signed.key)
    assert verifying.verify(signed.hub, first_key).findings == ()
    signed_hubs.revoke(signed.hub, second.identity.id, third)
    (finding,) = verifying.verify(signed.hub, first_key).findings
    assert finding.endswith("neither the expected signer nor endorsed by it")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("12345678", "--revoke_key=12345678: must be the fingerprint of one signer"),
        ("", "--revoke_key=: must be the fingerprint of one signer"),
    ],
)
def test_only_signers_are_revoked(signed, name, message):
    with pytest.raises(ValueError, match=message):
        signed_hubs.revoke(signed.hub, name, signed.signer)


def test_a_signer_does_not_return(signed, new_key):
    new = signing.KeySigner(new_key, "secret")
    signed_hubs.rotate(signed.hub, signed.signer, new)
    with pytest.raises(ValueError, match="is or was a signer of this hub"):
        signed_hubs.rotate(signed.hub, new, signed.signer)


def test_an_unsigned_hub_has_no_key_to_rotate(hub, signed_once, new_key):
    new = signing.KeySigner(new_key, "secret")
    with pytest.raises(ValueError, match="is not signed: tools/publish --sign signs"):
        signed_hubs.rotate(hub, signed_once.signer, new)


# Bad input


def pem(key, password=b""):
    algorithm = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, algorithm
    )


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def ssh(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def certificate(key, name="", issuer=b""):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "toy")])
    start = datetime.datetime(2026, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
    )
    if name:
        names = x509.SubjectAlternativeName([x509.RFC822Name(name)])
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
        extension = x509.UnrecognizedExtension(oid, issuer)
        builder = builder.add_extension(names, critical=True)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
BITCOIN = ec.generate_private_key(ec.SECP256K1())
CERTIFICATE = certificate(EC).public_bytes(serialization.Encoding.PEM)
BAD_PRIVATE_KEYS = {
    "a public key": (public_pem(EC), "is a public key: a private key in PEM format"),
    "RSA": (pem(RSA), "is a key of the kind RSA: an elliptic-curve key of P-256"),
    "Ed25519": (pem(ed25519.Ed25519PrivateKey.generate()), "of the kind Ed25519"),
    "another curve": (pem(BITCOIN), "is a key of the kind secp256k1"),
    "SSH": (ssh(EC), "is an SSH key: a private key in PEM format is needed"),
    "a certificate": (CERTIFICATE, "is a certificate: a private key in PEM format"),
    "no password": (pem(EC, b"secret"), "is encrypted: give its password in the var"),
    "empty": (b"", "is empty: give the PEM file of a private key"),
    "text": (b"hello\n", "is not a key in PEM format: a private key"),
    "DER": (b"\x30\x77\x02\x01", "is not a key in PEM format: a private key"),
    "cut off": (pem(EC)[:60], "can't be read as a private key: damaged"),
    "huge": (b"x" * 100_000, "is not a key in PEM format"),
}


@pytest.mark.ci_except("a public key", "no password")
@pytest.mark.parametrize("name", BAD_PRIVATE_KEYS)
def test_a_bad_private_key_is_refused(export, publish, tmp_path, name):
    content, message = BAD_PRIVATE_KEYS[name]
    key, hub = tmp_path / "key", tmp_path / "hub"
    key.write_bytes(content)
    done = publish(export, f"--hub={hub}", "--sign", f"--private_key={key}")
    assert_refused(done, message)
    assert str(key) in done.stderr
    assert not hub.exists()
    assert not (export / "conformance-1.json").exists()  # before the suite runs


def test_a_wrong_password_is_refused(tmp_path):
    (tmp_path / "key").write_bytes(pem(EC, b"secret"))
    with pytest.raises(ValueError, match="wrong password or damaged"):
        signing.KeySigner(tmp_path / "key", "other")


def test_a_password_for_a_plain_key_is_ignored(tmp_path):
    (tmp_path / "key").write_bytes(pem(EC))
    assert signing.KeySigner(tmp_path / "key", "secret").identity


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
def test_only_files_are_keys(tmp_path, kind):
    key = tmp_path / "key"
    if kind == "folder":
        key.mkdir()
    elif kind == "pipe":
        os.mkfifo(key)
    errors = {"missing": "No such file"}
    with pytest.raises((ValueError, OSError), match=errors.get(kind, "not a regular")):
        signing.KeySigner(key)
    with pytest.raises((ValueError, OSError), match=errors.get(kind, "not a regular")):
        identities.public_key(key)


BAD_PUBLIC_KEYS = {
    "a private key": (pem(EC), "is a private key: a public key in PEM format"),
    "RSA": (public_pem(RSA), "is a key of the kind RSA"),
    "a certificate": (CERTIFICATE, "is a certificate: a public key in PEM format"),
    "SSH": (b"ssh-ed25519 AAAA me\n", "is an SSH key: a public key in PEM format"),
    "cut off": (public_pem(EC)[:60], "can't be read as a public key: damaged"),
    "empty": (b"\n", "is empty: give the PEM file of a public key"),
}


@pytest.mark.parametrize("name", BAD_PUBLIC_KEYS)
def test_a_bad_public_key_is_refused(tmp_path, name):
    content, message = BAD_PUBLIC_KEYS[name]
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        identities.public_key(tmp_path / "key")


WRONG_USAGE = {
    "no key": (["e", "--hub=h", "--sign"], "--sign needs --private_key=FILE or"),
    "two signers": (
        ["e", "--hub=h", "--sign", "--private_key=k", "--sigstore"],
        "--private_key can't be combined with --sigstore.",
    ),
    "no --sign": (["e", "--hub=h", "--private_key=k"], "--private_key needs --sign"),
    "no hub": (["--sign", "--private_key=k"], "--hub is missing"),
    "another hub": (
        ["e", "--hub=hf:me", "--sign", "--private_key=k"],
        "--sign is for hubs in folders, got --hub=hf:me",
    ),
    "two actions": (
        ["--verify=h", "--new_key=k"],
        "--verify can't be combined with --new_key",
    ),
    "export": (
        ["e", "--hub=h", "--private_key=k", "--rotate_key=n"],
        "unexpected argument 'e'",
    ),
    "public key": (["e", "--hub=h", "--public_key=k"], "--public_key needs --verify"),
    "identity": (["--verify=h", "--identity=me"], "--identity and --identity_provider"),
    "number": (["--verify=h", "--min_sequence=-1"], "--min_sequence"),
    "no hub there": (
        ["--hub=/nowhere/hub", "--private_key=KEY", "--rotate_key=KEY"],
        "/nowhere/hub is not a hub",
    ),
}


@pytest.mark.ci_except("no key", "export")
@pytest.mark.parametrize("name", WRONG_USAGE)
def test_wrong_usage_is_one_line(publish, signed_once, name):
    flags, message = WRONG_USAGE[name]
    key = str(signed_once.key)
    done = publish(*(flag.replace("KEY", key) for flag in flags))
    assert_refused(done, message)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_new_key_replaces_no_file(publish, tmp_path):
    for name in ("key", "key.pub"):
        (tmp_path / name).write_text("mine")
        done = publish(f"--new_key={tmp_path / 'key'}")
        assert_refused(done, f"{tmp_path / name}: File exists")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
        b"\xff\xfe",
        b'{"verificationMaterial": {"publicKey": {"hint": 7}}}',
        b"x" * (2 << 20),
    ],
    ids=["empty", "{}", "null", "[[[[", "{{{{", "1111", "not UTF-8", "hint", "2 MiB"],
)
def test_a_damaged_signature_is_described(signed_once, tmp_path, content):
    (tmp_path / "sig").write_bytes(content)
    verifier = signing.Verifier(signed_once.signer.identity)
    problem = verifier.problem(tmp_path / "sig", {"a": "0" * 64})
    assert problem.startswith(("is damaged", "is a signature of no key"))


def test_the_size_of_a_signature_is_limited(signed_once, tmp_path):
    files, path = {"a": "0" * 64}, tmp_path / "sig"
    path.write_bytes(signed_once.signer.sign(files) + b" " * (1 << 20))
    verifier = signing.Verifier(signed_once.signer.identity)
    assert verifier.problem(path, files) == "is damaged: it is not a signature"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payload", "AAAA"),
        ("payloadType", "text/plain"),
        ("signatures", []),
        ("signatures", [{"sig": "AAAA", "keyid": ""}]),
        ("signatures", [{"sig": "", "keyid": ""}]),
    ],
)
def test_a_forged_bundle_is_not_valid(signed_once, tmp_path, field, value):
    files = {"a": "0" * 64}
    bundle = json.loads(signed_once.signer.sign(files))
    verifier = signing.Verifier(signed_once.signer.identity)
    path = tmp_path / "sig"
    path.write_text(json.dumps(bundle))
    assert verifier.problem(path, files) == ""
    bundle["dsseEnvelope"][field] = value
    path.write_text(json.dumps(bundle))
    assert verifier.problem(path, files).startswith("is not a valid signature of key")


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry.clear(),
        lambda entry: entry.update(sequence=True),
        lambda entry: entry.update(sequence=0),
        lambda entry: entry.update(signers=[]),
        lambda entry: entry.update(signers=[7]),
        lambda entry: entry.update(files={}),
        lambda entry: entry.update(extra=1),
        lambda entry: entry["signers"].append(entry["signers"][0]),
        lambda entry: entry["signers"][0].update(file="../../etc/passwd"),
        lambda entry: entry["signers"][0].update(file="signing/x.pem"),
        lambda entry: entry["signers"][0].update(endorsed=True),
        lambda entry: entry["signers"][0].update(revoked=True),
        lambda entry: entry["signers"][0].update(endorsed=1),
    ],
)
def test_a_damaged_record_of_signers_is_described(signed_once, edit):
    entry = json.loads(json.dumps(hub_index.read_index(signed_once.hub).signing))
    assert signed_index.parse(entry).sequence == 2
    edit(entry)
    with pytest.raises(ValueError, match="."):
        signed_index.parse(entry)


def test_a_missing_library_is_named(signed, other, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    message = "Signatures need the package model-signing: run tools/setup sign"
    with pytest.raises(ImportError, match=message):
        verifying.verify(signed.hub)
    with pytest.raises(ImportError, match=message):
        signing.KeySigner(signed.key)


def test_an_unsigned_hub_needs_no_library(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    verification = verifying.verify(hub)
    assert verification.findings == ()
    assert verification.notes[0].startswith("not signed: ")


# Sigstore, as far as it goes without a network


def test_sigstore_without_a_network_is_one_line(export, publish, tmp_path):
    hub = tmp_path / "hub"
    unreachable = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    flags = (f"--hub={hub}", "--sign", "--sigstore")
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    done = publish(export, *flags, **unreachable, **home)
    assert_refused(done, "Sigstore did not answer as needed")
    assert "--private_key=FILE signs without one" in done.stderr
    assert not hub.exists()


@pytest.mark.parametrize("encoded", [True, False])
def test_the_identity_is_read_from_the_certificate(encoded):
    issuer = b"https://accounts.example.com"
    value = bytes([12, len(issuer)]) + issuer if encoded else issuer
    raw = certificate(EC, "me@example.com", value).public_bytes(
        serialization.Encoding.DER
    )
    material = {"certificate": {"rawBytes": base64.b64encode(raw).decode()}}
    bundle = json.dumps({"verificationMaterial": material}).encode()
    identity = identities.sigstore_identity(bundle)
    assert identity == identities.sigstore("me@example.com", issuer.decode())
    assert str(identity) == "me@example.com, as https://accounts.example.com says"


@pytest.mark.parametrize("bundle", [b"", b"{}", b'{"verificationMaterial": {}}'])
def test_a_signature_without_identity_is_refused(bundle):
    with pytest.raises(ValueError, match="Sigstore's signature has no identity"):
        identities.sigstore_identity(bundle)


class FakeSigstore:
    """Signs with a key for an identity, in place of Sigstore."""

    kind = identities.SIGSTORE

    def __init__(self, signer, name):
        self.identity, self._signer, self._name = None, signer, name

    def sign(self, files):
        identity = identities.sigstore(self._name, "https://accounts.example.com")
        if self.identity not in (None, identity):
            raise ValueError(f"Sigstore confirmed {identity}, not {self.identity}")
        self.identity = identity
        return self._signer.sign(files)


@pytest.fixture
def fake_sigstore(monkeypatch, signed_once):
    """Replaces the verification of Sigstore's signatures by that of a key's."""
    real = signing.Verifier

    class Verifier:
        def __init__(self, identity):
            self.identity = identity
            self._verifier = real(signed_once.signer.identity)

        def problem(self, signature, files):
            return self._verifier.problem(signature, files)

    monkeypatch.setattr(signing, "Verifier", Verifier)
    return lambda name: FakeSigstore(signed_once.signer, name)


def test_a_hub_is_signed_for_an_identity(fake_sigstore, export, other, tmp_path):
    hub = tmp_path / "new"
    tampering.publish(export, hub, fake_sigstore("me@example.com"))
    tampering.publish(other, hub, fake_sigstore("me@example.com"))
    me, you = (
        identities.sigstore(f"{name}@example.com", "https://accounts.example.com")
        for name in ("me", "you")
    )
    entry = signed_index.parse(hub_index.read_index(hub).signing)
    assert (entry.sequence, entry.current.id) == (2, me.id)
    assert json.loads((hub / me.file).read_text())["identity"] == "me@example.com"
    expected = signature_checks.Expected(signers=[you])
    (finding,) = verifying.verify(hub, expected).findings
    assert f"is signed by {me}, which is neither the expected" in finding
    assert verifying.verify(hub, signature_checks.Expected(signers=[me])).findings == ()
    before = contents(hub)
    third = make_export(other.parent, arch="toy4")
    with pytest.raises(ValueError, match="Sigstore confirmed you@example.com"):
        tampering.publish(third, hub, fake_sigstore("you@example.com"))
    assert contents(hub) == before

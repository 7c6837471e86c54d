"""Texts are looked for among vectors of CLIP and SigLIP, and of nothing else."""

import json
import logging
import shutil

import ml_dtypes
import numpy as np
import pytest

from bulk import text_queries, text_tokens, text_tower, vectors
from exporters import manifest
from tests.bulk import checkpoints, text_tower_test, vectors_test
from tests.images import kinds
from tests.zoo import oracles
from zoo.weights import weights_file

SMALL = (
    *("--gin_binding=CLIP.depth=1", "--gin_binding=CLIP.channels=16"),
    *("--gin_binding=CLIP.num_heads=2", "--gin_binding=CLIP.embedding_size=8"),
)
TEXTS = ["two dogs", "a cat on the beach", "the beach"]


@pytest.fixture(scope="session")
def model(exported):
    """Returns a small image tower of CLIP."""
    return exported("clip_base_32", "random", *SMALL) / "feature_vector" / "1"


def folder_of(path, model, count=6, size=checkpoints.SIZE):
    """Writes the vectors of images, as if the model had computed them."""
    path.mkdir()
    vectors_test.folder_of(path, checkpoints.values(5, count, size))
    hashes = manifest.file_hashes(model)
    vectors_test.changed(path, model=manifest.content_hash(hashes), handle=str(model))
    return path


def image_tower(model):
    """Returns the tensors that are compared, by their names in transformers."""
    ours = weights_file.read(model).tensors
    patches = np.asarray(ours["patches/kernel"]).transpose(3, 2, 0, 1)
    return {
        "vision_model.embeddings.patch_embedding.weight": np.ascontiguousarray(patches),
        "vision_model.post_layernorm.weight": np.asarray(ours["norm/gamma"]),
        "visual_projection.weight": np.asarray(ours["project/kernel"]).T.copy(),
    }


def look_for(model, folder, checkpoint, texts=TEXTS):
    return text_queries.vectors_of(model, vectors.read(folder), texts, checkpoint)


def test_texts_have_the_embeddings_of_the_tower(tmp_path, model, caplog):
    more = image_tower(model)
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", more=more)
    found = look_for(model, folder_of(tmp_path / "features", model), checkpoint)
    tower = text_tower.TextTower(checkpoint)
    tokenizer = text_tokens.Tokenizer(
        checkpoint, family=text_tower.CLIP, max_tokens=tower.max_tokens
    )
    for text, vector in zip(TEXTS, found, strict=True):
        embedding = tower.embed(tokenizer.encode(text))
        expected = embedding / np.linalg.norm(embedding)
        np.testing.assert_allclose(vector, expected, rtol=1e-6)
    assert not caplog.records


def test_the_most_similar_images_are_printed(tool, tmp_path, model):
    more = image_tower(model)
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", more=more)
    folder = folder_of(tmp_path / "features", model)
    arguments = [folder, f"--text_tower={checkpoint}", "--k=2"]
    arguments += [f"--text={text}" for text in TEXTS]
    done = tool("search", *arguments)
    assert done.returncode == 0, done.stderr
    cosines = look_for(model, folder, checkpoint) @ vectors.read(folder).unit.T
    lines = done.stdout.splitlines()
    assert lines[::3] == TEXTS
    for number, row in enumerate(cosines):
        best = np.argsort(-row)[:2]
        expected = [f"  {row[i]:7.4f}  {i}.jpg" for i in best]
        assert lines[3 * number + 1 : 3 * number + 3] == expected


def test_a_tower_alone_can_not_be_checked(tmp_path, model, caplog):
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip")
    folder = folder_of(tmp_path / "features", model)
    with caplog.at_level(logging.WARNING):
        look_for(model, folder, checkpoint)
    (record,) = caplog.records
    assert "checkpoint lacks weights of the image tower: whether" in record.message


@pytest.mark.parametrize("name", ["patch_embedding", "post_layernorm", "projection"])
@pytest.mark.parametrize("change", [lambda t: t * 1.01, lambda t: t[..., :7]])
def test_a_tower_of_another_model_is_refused(tmp_path, model, name, change):
    more = image_tower(model)
    (key,) = (key for key in more if name in key)
    more[key] = np.ascontiguousarray(change(more[key]))
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", more=more)
    folder = folder_of(tmp_path / "features", model)
    with pytest.raises(ValueError, match=f"{name}.*text tower belongs to another mod"):
        look_for(model, folder, checkpoint)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_rounded_weights_are_those_of_the_model(tmp_path, model, dtype):
    more = {name: t.astype(dtype) for name, t in image_tower(model).items()}
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", more=more)
    look_for(model, folder_of(tmp_path / "features", model), checkpoint)


def with_spec(model, folder, **fields):
    """Copies a model, with other fields of its spec in the manifest."""
    shutil.copytree(model, folder)
    path = folder / manifest.MANIFEST
    record = json.loads(path.read_text())
    record["configuration"]["spec"] |= fields
    path.write_text(json.dumps(record))
    return folder


def without_manifest(model, folder):
    shutil.copytree(model, folder)
    (folder / manifest.MANIFEST).unlink()
    return folder


def without_spec(model, folder):
    with_spec(model, folder)
    path = folder / manifest.MANIFEST
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "configuration": {"spec": "CLIP"}}))
    return folder


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        (
            lambda m, f: with_spec(m, f, **{"class": "ViT"}),
            "is clip_base_32, whose vectors can't be compared with texts",
        ),
        (without_manifest, "has no manifest, whose vectors can't be compared"),
        (without_spec, "is clip_base_32, whose vectors can't be compared"),
        (
            lambda m, f: with_spec(m, f, embedding_size=None),
            "are class tokens, not image embeddings: export with --gin_binding=CLIP",
        ),
        (
            lambda m, f: with_spec(m, f, **{"class": "SigLIP"}),
            "has a text tower of CLIP, but the vectors come from an image tower of Si",
        ),
    ],
)
def test_vectors_of_other_models_are_refused(tmp_path, model, copy, message):
    other = copy(model, tmp_path / "model")
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip")
    folder = folder_of(tmp_path / "features", other)
    with pytest.raises(ValueError, match=message):
        look_for(other, folder, checkpoint)


def test_vectors_of_a_resnet_are_refused(tool, tmp_path, pair):
    model = pair / "feature_vector" / "1"
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", size=64)
    folder = folder_of(tmp_path / "features", model, size=64)
    arguments = ["--text=dogs", f"--text_tower={checkpoint}"]
    done = tool("search", folder, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "--text needs vectors of CLIP or SigLIP; " in line
    assert "is resnet_cifar_20, whose vectors can't" in line


def test_the_model_must_be_the_one_that_made_the_vectors(tmp_path, model, pair):
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip")
    folder = folder_of(tmp_path / "features", model)
    with pytest.raises(ValueError, match="is not the model that computed these vec"):
        look_for(pair / "feature_vector" / "1", folder, checkpoint)


def test_embeddings_of_another_length_are_refused(tmp_path, model):
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", size=7)
    folder = folder_of(tmp_path / "features", model)
    with pytest.raises(ValueError, match="have the length 7, the vectors 8: it is the"):
        look_for(model, folder, checkpoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text=dogs"], "--text and --text_tower need each other"),
        (["x.jpg", "--text_tower=a"], "--text and --text_tower need each other"),
        (["x.jpg", "--text=dogs", "--text_tower=a"], "give either images, --text or"),
        (["--duplicates", "--text=dogs"], "give either images, --text or --duplicates"),
        (["--text=dogs", "--text_tower=nowhere"], "nowhere is not a folder: download"),
        (["--text=", "--text_tower={checkpoint}"], "the text '' has no words"),
        (
            [*("--text=a",) * 51, "--text_tower=a", "--plot=a.png"],
            "--plot takes at most 50 queries",
        ),
    ],
)
def test_wrong_usage_is_told_in_a_line(tool, tmp_path, model, arguments, message):
    more = image_tower(model)
    checkpoint = checkpoints.write(tmp_path / "checkpoint", "clip", more=more)
    folder = folder_of(tmp_path / "features", model)
    arguments = [argument.format(checkpoint=checkpoint) for argument in arguments]
    done = tool("search", folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


VISION = {"image_size": 64, "patch_size": 32, "num_hidden_layers": 2}
BINDINGS = {
    "clip": {"embedding_size": 32},
    "siglip": {"patch_size": 32, "hidden": 256},
}


def images_of(folder, count):
    """Writes images of smooth colours, [N, 64, 64, 3], and returns their values."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    images = small.repeat(16, axis=1).repeat(16, axis=2)
    folder.mkdir()
    for number, pixels in enumerate(images):
        (folder / f"{number}.png").write_bytes(kinds.encoded(pixels, "PNG"))
    return images / np.float32(255)


@pytest.mark.ci
@pytest.mark.parametrize("kind", checkpoints.KINDS)
def test_images_are_ranked_as_by_transformers(kind, tool, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    made = checkpoints.tokenizer(kind)
    text = {"vocab_size": made.get_vocab_size(), "max_position_embeddings": 16}
    text["num_hidden_layers"] = 2  # no more than the image tower, or it is not found
    if kind == "clip":
        text["eos_token_id"] = made.token_to_id(checkpoints.END)
    theirs = text_tower_test.network(kind, vision=VISION, **text)
    checkpoint = tmp_path / "checkpoint"
    theirs.save_pretrained(checkpoint)
    made.save(str(checkpoint / "tokenizer.json"))

    arch, spec = {
        "clip": ("clip_base_32", "CLIP"),
        "siglip": ("siglip_base_16", "SigLIP"),
    }[kind]
    bindings = {"depth": 2, "channels": 64, "num_heads": 4, "image_size": 64}
    bindings |= BINDINGS[kind]
    done = tool(
        "export",
        f"--arch={arch}",
        f"--weights={checkpoint / 'model.safetensors'}",
        f"--output={tmp_path / 'exports'}",
        "--check=none",
        *(f"--gin_binding={spec}.{k}={v}" for k, v in bindings.items()),
    )
    assert done.returncode == 0, done.stderr
    images = images_of(tmp_path / "images", 12)
    done = tool(
        "embed",
        f"--module={tmp_path / 'exports' / arch}",
        f"--data={tmp_path / 'images'}",
        f"--output={tmp_path / 'features'}",
    )
    assert done.returncode == 0, done.stderr
    texts = [*TEXTS, "dogs " * 50]
    done = tool(
        "search",
        tmp_path / "features",
        *(f"--text={text}" for text in texts),
        f"--text_tower={checkpoint}",
        *("--k=12", "--format=json", f"--plot={tmp_path / 'found.svg'}"),
    )
    assert done.returncode == 0, done.stderr
    assert "the end of 'dogs dogs" in done.stderr
    assert "can't be checked" not in done.stderr
    picture = (tmp_path / "found.svg").read_text()
    assert "<!-- a cat on the beach -->" in picture
    assert picture.count("<!-- 7.png -->") == len(texts)

    mean, std = normalization(tmp_path / "exports" / arch)
    pixels = ((images - mean) / std).transpose(0, 3, 1, 2)
    tokenizer = text_tokens.Tokenizer(
        checkpoint, family={"clip": "CLIP", "siglip": "SigLIP"}[kind], max_tokens=16
    )
    for number, found in enumerate(json.loads(done.stdout)):
        with torch.no_grad():
            outputs = theirs(
                input_ids=torch.tensor([tokenizer.encode(texts[number])]),
                pixel_values=torch.tensor(np.ascontiguousarray(pixels)),
            )
        logits = outputs.logits_per_image[:, 0].numpy()
        ranked = [int(item["key"].removesuffix(".png")) for item in found]
        assert ranked == np.argsort(-logits).tolist()
        cosines = (outputs.image_embeds @ outputs.text_embeds[0]).numpy()
        similarities = [item["similarity"] for item in found]
        np.testing.assert_allclose(similarities, cosines[ranked], atol=2e-5)


def normalization(arch_folder):
    """Returns the mean and standard deviation by which a model normalises pixels."""
    record = manifest.read(arch_folder / "feature_vector" / "1")
    values = record.configuration["normalization"]
    return (np.asarray(values[name], np.float32) / 255 for name in ("mean", "std"))

"""Checks every import of the packages and tools against the rules of the design."""

from __future__ import annotations

import ast
import dataclasses
import functools
import graphlib
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = (
    *("benchmarks", "bulk", "conformance", "documentation", "exporters", "foundation"),
    *("images", "publishing", "retraining", "reuse", "training", "zoo"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    only: tuple[str, ...] = (*PACKAGES, "tools")  # of our modules, directly
    never: tuple[str, ...] = ()  # any modules, directly or indirectly
    later: tuple[str, ...] = ()  # modules that may import `never` in functions

    def __str__(self) -> str:
        if self.never:
            return f"never imports {', '.join(self.never)}"
        only = "only " + ", ".join(self.only) if self.only else "none"
        return f"imports {only} of ours"


TENSORFLOW = ("tensorflow", "tf_keras", "tensorflow_hub")

# A rule applies to the module that it names and all modules below it. <family> stands
# for each package of zoo that has a configs folder, the same one throughout a row.
# fmt: off
RULES = [
    ("foundation",         Rule(only=("foundation",))),
    ("foundation",         Rule(never=("keras", *TENSORFLOW))),
    ("images",             Rule(only=("images",))),
    ("images.listing",     Rule(never=("keras", *TENSORFLOW))),
    ("zoo",                Rule(only=("zoo", "foundation"))),
    ("zoo",                Rule(never=TENSORFLOW, later=("zoo.weights.checkpoint",))),
    ("zoo.spec",           Rule(only=("zoo.head",))),
    ("zoo.head",           Rule(only=("zoo.layers",))),
    ("zoo.layers",         Rule(only=("zoo.layers",))),
    ("zoo.<family>",       Rule(only=("zoo.<family>", "zoo.layers", "zoo.spec"))),
    ("zoo.model",          Rule(never=("zoo.<family>",))),  # the .gin file imports it
    ("zoo.config",         Rule(never=("keras", "zoo.model"))),
    ("zoo.definition",     Rule(never=("keras", "zoo.model"))),
    ("zoo.facts",          Rule(never=("keras", "zoo.model"))),
    ("zoo.taxonomy",       Rule(never=("keras", "zoo.model"))),
    ("training",           Rule(only=("training", "foundation", "images", "zoo"))),
    ("exporters",          Rule(only=("exporters", "foundation", "images", "zoo"))),
    ("exporters.manifest", Rule(never=("keras", *TENSORFLOW))),
    ("conformance",        Rule(only=("conformance", "foundation", "reuse"))),
    # Pages are written from manifests, reports, and facts of zoo that need no model;
    # `measurements` makes the manifests and reports.
    ("documentation",      Rule(only=("documentation", "foundation", "conformance",
                                      "exporters", "training.provenance",
                                      "zoo.catalog", "zoo.config", "zoo.facts",
                                      "zoo.taxonomy", "zoo.weights.registry"))),
    ("documentation",      Rule(never=("keras", *TENSORFLOW),
                                later=("documentation.measurements",))),
    ("publishing",         Rule(only=("publishing", "foundation", "exporters.manifest",
                                      "conformance.report"))),
    ("publishing",         Rule(never=("keras", *TENSORFLOW))),
    ("reuse",              Rule(only=("reuse", "images"))),
    ("reuse.handles",      Rule(never=("keras", *TENSORFLOW))),
    ("bulk",               Rule(only=("bulk", "exporters.manifest", "foundation",
                                      "images", "reuse", "training.data",
                                      "zoo.weights.safetensors_files",
                                      "zoo.weights.weights_file"))),
    ("retraining",         Rule(only=("retraining", "foundation", "conformance",
                                      "exporters", "images", "reuse", "training"))),
    ("benchmarks",         Rule(only=("benchmarks", "foundation", "exporters", "images",
                                      "reuse", "training", "zoo"))),
    ("image_model_zoo",    Rule(only=("image_model_zoo",))),
    ("tools",              Rule()),
]
# fmt: on


@dataclasses.dataclass(frozen=True)
class Import:
    importer: str
    location: str  # path:line
    target: str
    deferred: bool  # runs after the importer's own import, or never


class Tree:
    """The modules below a root, and every import in them."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.modules = dict(self._modules())
        self.families = sorted(p.parent.name for p in root.glob("zoo/*/configs"))
        self.imports = {
            module: [
                Import(module, f"{path.relative_to(root)}:{line}", target, deferred)
                for line, target, deferred in self._imports(module, path)
            ]
            for module, path in self.modules.items()
        }

    def _modules(self) -> Iterator[tuple[str, pathlib.Path]]:
        for path in sorted(self.root.glob("*/**/*")):
            parts = path.relative_to(self.root).with_suffix("").parts
            if parts[0] not in (*PACKAGES, "tools") or not path.is_file():
                continue
            if path.suffix == ".py" or is_python_script(path):
                if parts[-1] == "__init__":
                    parts = parts[:-1]
                yield ".".join(parts), path

    def _imports(
        self, module: str, path: pathlib.Path
    ) -> Iterator[tuple[int, str, bool]]:
        is_package = path.name == "__init__.py"
        package = module.split(".") if is_package else module.split(".")[:-1]
        for node, deferred in walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name, deferred
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else []
                source = ".".join([*above, *filter(None, [node.module])])
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    target = inner if self.exists(inner) else source
                    yield node.lineno, target, deferred
            elif name := dynamically_imported(node):
                yield node.lineno, name, deferred

    def exists(self, module: str) -> bool:
        return module in self.modules or self.root.joinpath(*module.split(".")).is_dir()

    @functools.cache  # noqa: B019, a tree lives as long as a test
    def runs(self, module: str) -> dict[str, tuple[str, ...]]:
        """Returns the import chain to each module that importing `module` runs."""
        chains: dict[str, tuple[str, ...]] = {}
        waiting = [(module, ())]
        while waiting:
            name, through = waiting.pop(0)
            if name in chains:
                continue
            chains[name] = through
            parents = [name.rsplit(".", 1)[0]] if "." in name else []
            direct = [i.target for i in self.imports.get(name, ()) if not i.deferred]
            waiting += [(other, (*through, name)) for other in (*parents, *direct)]
        return chains


def is_python_script(path: pathlib.Path) -> bool:
    if path.suffix:
        return False
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith(b"#!") and b"python" in first


def walk(node: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            later = True
        yield child, deferred
        yield from walk(child, deferred or later)


def dynamically_imported(node: ast.AST) -> str | None:
    """Returns the argument of `importlib.import_module("…")` or `__import__("…")`."""
    match node:
        case ast.Call(func=called, args=[ast.Constant(value=str(name)), *_]):
            if ast.unparse(called).split(".")[-1] in ("import_module", "__import__"):
                return name
    return None


def within(module: str, scopes: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{scope}.") for scope in scopes)


def rules_of(tree: Tree) -> Iterator[tuple[str, Rule]]:
    for scope, rule in RULES:
        if "<family>" not in str((scope, rule)):
            yield scope, rule
            continue
        for family in tree.families:
            only, never = (
                tuple(name.replace("<family>", family) for name in names)
                for names in (rule.only, rule.never)
            )
            yield scope.replace("<family>", family), Rule(only=only, never=never)


def violations(tree: Tree) -> list[str]:
    """Returns a line for each import that a rule forbids, and one for a cycle."""
    messages = []
    for scope, rule in rules_of(tree):
        for module in tree.imports:
            if within(module, (scope,)):
                for statement in tree.imports[module]:
                    messages += judge(tree, statement, scope, rule)
    return messages + cycles(tree)


def judge(tree: Tree, statement: Import, scope: str, rule: Rule) -> Iterator[str]:
    problem = f"{statement.location}: {statement.importer} imports {statement.target}"
    is_ours = within(statement.target, (*PACKAGES, "tools", "tests"))
    if is_ours and not within(statement.target, rule.only):
        yield f"{problem}, but {scope} {rule}"
    if statement.deferred and within(statement.importer, rule.later):
        return
    for name, through in tree.runs(statement.target).items():
        if within(name, rule.never):
            chain = "".join(f", which imports {link}" for link in (*through[1:], name))
            yield f"{problem}{chain if through else ''}, but {scope} {rule}"
            return


def cycles(tree: Tree) -> list[str]:
    graph = {
        module: [
            statement.target
            for statement in statements
            if statement.target in tree.modules
        ]
        for module, statements in tree.imports.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [f"import cycle: {' <- '.join(error.args[1])}"]
    return []


@pytest.fixture(scope="module")
def tree():
    return Tree(ROOT)


def test_imports_follow_the_arrows(tree):
    messages = violations(tree)
    assert not messages, "\n" + "\n".join(messages)


def test_every_package_has_a_rule():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= {scope for scope, _ in RULES}


def test_the_tree_is_the_real_one(tree):
    assert {"zoo.model", "zoo.spec", "tools.setup"} <= tree.modules.keys()
    assert any(statement.target == "keras" for statement in tree.imports["zoo.model"])
    assert "mobilenet" in tree.families


CLEAN = {
    "zoo/__init__.py": "def build(arch):\n    from zoo import model\n",
    "zoo/spec.py": "import keras\n",
    "zoo/config.py": "import gin\n",
    "zoo/facts.py": "from zoo import config\n",
    "zoo/taxonomy.py": "from zoo import config\n",
    "zoo/head.py": "import keras\n",
    "zoo/model.py": "from zoo import config, head, spec, taxonomy\n",
    "zoo/layers/__init__.py": "",
    "zoo/layers/rounding.py": "",
    "zoo/layers/conv_norm.py": "import keras\nfrom zoo.layers import rounding\n",
    "zoo/resnet/__init__.py": "",
    "zoo/resnet/configs/resnet_v1_50.gin": "",
    "zoo/resnet/resnet_v1.py": "from zoo import spec\nfrom zoo.layers import conv_norm",
    "zoo/mobilenet/__init__.py": "",
    "zoo/mobilenet/configs/mobilenet_v2.gin": "",
    "zoo/mobilenet/mobilenet_v2.py": "import keras\n",
    "exporters/__init__.py": "",
    "exporters/manifest.py": "import json\n",
    "exporters/pair.py": "import tensorflow as tf\nfrom zoo import model\n",
    "conformance/__init__.py": "",
    "conformance/suite.py": "import tensorflow as tf\nfrom reuse import handles\n",
    "reuse/__init__.py": "def __getattr__(name):\n    from reuse import layer\n",
    "reuse/layer.py": "import keras, tensorflow\nfrom reuse import handles\n",
    "reuse/handles.py": "import tarfile\n",
    "tools/export": "#!/usr/bin/env python3\nimport zoo\nfrom exporters import pair\n",
}


def make_tree(root: pathlib.Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Tree(root)


def test_a_clean_tree_passes(tmp_path):
    assert violations(make_tree(tmp_path, CLEAN)) == []


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        (
            "zoo/head.py",
            "import keras\nimport tensorflow as tf",
            "zoo/head.py:2: zoo.head imports tensorflow, but zoo never imports "
            "tensorflow, tf_keras, tensorflow_hub",
        ),
        (
            "zoo/weights.py",
            "def load():\n    import tensorflow.io",
            "zoo/weights.py:2: zoo.weights imports tensorflow.io, but zoo never",
        ),
        (
            "zoo/weights.py",
            "import importlib\nhub = importlib.import_module('tensorflow_hub')",
            "zoo/weights.py:2: zoo.weights imports tensorflow_hub, but zoo never",
        ),
        (
            "zoo/weights.py",
            "from exporters import manifest",
            "zoo/weights.py:1: zoo.weights imports exporters.manifest, but zoo imports "
            "only zoo, foundation of ours",
        ),
        (
            "zoo/spec.py",
            "from . import taxonomy",
            "zoo/spec.py:1: zoo.spec imports zoo.taxonomy, but zoo.spec imports only "
            "zoo.head of ours",
        ),
        (
            "zoo/layers/rounding.py",
            "from .. import spec",
            "zoo/layers/rounding.py:1: zoo.layers.rounding imports zoo.spec, but "
            "zoo.layers imports only zoo.layers of ours",
        ),
        (
            "zoo/resnet/resnet_v1.py",
            "from zoo.mobilenet import mobilenet_v2",
            "zoo.resnet imports only zoo.resnet, zoo.layers, zoo.spec of ours",
        ),
        (
            "zoo/model.py",
            "from zoo.resnet import resnet_v1",
            "zoo/model.py:1: zoo.model imports zoo.resnet.resnet_v1, but zoo.model "
            "never imports zoo.resnet",
        ),
        (
            "zoo/config.py",
            "import keras.utils",
            "zoo.config never imports keras, zoo.model",
        ),
        (
            "zoo/facts.py",
            "from zoo import head",
            "zoo/facts.py:1: zoo.facts imports zoo.head, which imports keras, but "
            "zoo.facts never imports keras, zoo.model",
        ),
        (
            "zoo/taxonomy.py",
            "def classes():\n    from zoo import model",
            "zoo/taxonomy.py:2: zoo.taxonomy imports zoo.model, but zoo.taxonomy never",
        ),
        (
            "zoo/__init__.py",
            "from zoo import model",
            "zoo/facts.py:1: zoo.facts imports zoo.config, which imports zoo, which "
            "imports zoo.model, but zoo.facts never",
        ),
        (
            "exporters/pair.py",
            "import reuse",
            "exporters imports only exporters, foundation, images, zoo of ours",
        ),
        (
            "exporters/manifest.py",
            "from exporters import pair",
            "exporters/manifest.py:1: exporters.manifest imports exporters.pair, which "
            "imports tensorflow, but exporters.manifest never imports keras",
        ),
        (
            "conformance/suite.py",
            "from zoo import taxonomy",
            "conformance imports only conformance, foundation, reuse of ours",
        ),
        (
            "reuse/layer.py",
            "import conformance",
            "reuse imports only reuse, images of ours",
        ),
        (
            "reuse/handles.py",
            "from reuse import layer",
            "reuse.handles imports reuse.layer, which imports keras, but reuse.handles",
        ),
        (
            "zoo/weights.py",
            "from tools import export",
            "zoo.weights imports tools.export, but zoo imports only zoo, foundation of "
            "ours",
        ),
        (
            "zoo/layers/rounding.py",
            "def round_up():\n    from zoo.layers import conv_norm",
            "import cycle: zoo.layers.",
        ),
    ],
)
def test_a_forbidden_import_is_reported(tmp_path, file, source, message):
    messages = violations(make_tree(tmp_path, {**CLEAN, file: source}))
    assert any(message in line for line in messages), messages

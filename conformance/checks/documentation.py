"""Group D: compares a documentation page with the model that it describes.

`conformance.statements` specifies the format of a page.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from conformance import (
    clauses,
    documents,
    graph_counts,
    model_under_test,
    output_checks,
    statements,
    traces,
    verdict,
)

_NOT_HYPERPARAMETERS = ("training", "return_endpoints")
_FIX = "Generate the page from the model's manifest, and again after each change."
_RANDOM = "random"


def d01_states_ranges(model: model_under_test.ModelUnderTest) -> str:
    """Checks the stated ranges of batch, height and width at both ends of each.

    If the model's manifest has a range of heights or widths, the page must state the
    same range.
    """
    page = _page(model)
    batch, height, width = (_stated(page, n) for n in ("batch", "height", "width"))
    manifest_input = _manifest(model).get("input", {})
    for name, stated in (("height", height), ("width", width)):
        declared = manifest_input.get(f"{name}_range", stated)
        _expect(f"the {name}s {_span(declared)}", stated == declared, _span(stated))
    base = model.size
    trials = [(batch[0], base), (batch[1] or batch[0] + 1, base)]
    for ends in zip(height, width, strict=True):
        if None not in ends:
            trials += [(1, ends), (1, (ends[0], base[1])), (1, (base[0], ends[1]))]
    for count, size in dict.fromkeys(trials):
        with verdict.expecting(
            f"{count} images of {size[0]}x{size[1]} pixels to work, as the page states",
            mend=_FIX,
        ):
            output = model.infer(model.images(count, size=size))
        _expect(f"{count} rows", output.shape[0] == count, str(output.shape))
    return f"batch {_span(batch)}, height {_span(height)}, width {_span(width)}"


def d02_states_outputs(model: model_under_test.ModelUnderTest) -> str:
    """Checks that the page states the output size and, for classes, the class index."""
    page = _page(model)
    if model.kind == clauses.FEATURE_VECTOR:
        return f"num_features {_stated(page, 'num_features')}"
    count = _stated(page, "num_classes")
    file = _stated(page, "class_index")
    names = [path.relative_to(model.path).as_posix() for path in model.assets]
    _expect(
        f"the class index to be one of the assets: {', '.join(names) or 'none'}",
        any(name in file for name in names),
        file,
    )
    return f"num_classes {count}, {file}, {_stated(page, 'scores')}"


def d03_states_arguments(model: model_under_test.ModelUnderTest) -> str:
    """Checks the statements on fine-tuning and on each argument of a call."""
    page = _page(model)
    stated = _stated(page, "fine_tunable")
    is_tunable = bool(model.trainable_variables)
    tunable = _yes_or_no(is_tunable)
    _expect(f"fine-tunable {tunable}", stated == is_tunable, _yes_or_no(stated))
    arguments = {
        parameter.name
        for parameter in (traces.parameters(model.call)[1:] if model.call else ())
        if parameter.name not in _NOT_HYPERPARAMETERS
    }
    with _consistent_page():
        documented = page.arguments()
    if different := sorted(arguments ^ documented.keys()):
        name = different[0]
        problem = "no such argument" if name in documented else "not documented"
        _expect(
            f"the arguments {', '.join(sorted(arguments))}", False, f"{name}: {problem}"
        )
    for name, entry in documented.items():
        for key in ("dtype", "default", "effect"):
            _expect(f"the {key} of {name}", entry[key] not in (None, ""), "none")
    return f"fine-tunable {tunable}; {', '.join(documented) or 'no arguments'}"


def d04_states_origins(model: model_under_test.ModelUnderTest) -> str:
    """Checks the stated paper, data, licence, sizes and weights.

    If the weights are random, the first line of the page must say so.
    """
    page = _page(model)
    facts = {
        name: _stated(page, name)
        for name in ("paper", "data", "license", "params", "multiply_adds", "weights")
    }
    manifest = _manifest(model)
    weights = manifest.get("weights", {}).get("name", facts["weights"])
    _expect(f"the weights {weights}", weights in facts["weights"], facts["weights"])
    if license_name := manifest.get("license"):
        stated = facts["license"]
        _expect(f"the licence {license_name}", license_name in stated, stated)
    if _RANDOM in facts["weights"].lower():
        _expect(
            "the first line to say that the weights are random",
            _RANDOM in page.first.lower(),
            page.first,
        )
    return f"{facts['paper']}; {facts['data']}; {facts['license']}; {facts['weights']}"


def d05_numbers_are_right(model: model_under_test.ModelUnderTest) -> str:
    """Recomputes each number of the page from the model.

    The numbers are those of the labelled rows, the defaults of arguments and the shapes
    of endpoints. Any other number that is written with digit groups, such as 1,234,
    must equal one of the recomputed numbers.
    """
    page = _page(model)
    computed = dict(_computed(model, page))
    checked = 0
    for name, number in computed.items():
        with _consistent_page():
            stated = page.fact(name)
        if stated is not None:
            label = statements.FACTS[name].label
            _expect(f"{label} {number}", stated == number, str(stated))
            checked += 1
    with _consistent_page():
        arguments, endpoints = page.arguments(), page.endpoints()
    defaults = {p.name: p.default for p in traces.parameters(model.call)[1:]}
    for name, entry in arguments.items():
        value, stated = defaults.get(name), entry["default"]
        _expect(f"the default {value} of {name}", _equal(value, stated), str(stated))
    shapes = graph_counts.endpoints(model, side=_side(page)) if endpoints else {}
    for name, shape in endpoints.items():
        _expect(f"{name} {shapes.get(name)}", shapes.get(name) == shape, str(shape))
    recomputed = {*computed.values(), *_numbers_of_other_model(model)}
    for number in page.grouped:
        _expect("only numbers of the model", number in recomputed, f"{number:,}")
    return f"{checked + len(arguments) + len(endpoints)} numbers recomputed"


def _computed(
    model: model_under_test.ModelUnderTest, page: statements.Page
) -> Iterator[tuple[str, int]]:
    """Yields the name in `statements.FACTS` and the right value of each number."""
    sizes = [math.prod(v.shape) for v in model.variables]
    kind = "features" if model.kind == clauses.FEATURE_VECTOR else "classes"
    columns = output_checks.check_static_columns(model, columns=f"num_{kind}")
    yield f"num_{kind}", columns
    yield "params", sum(sizes)
    yield "trainable", sum(math.prod(v.shape) for v in model.trainable_variables)
    yield (
        "value_bytes",
        sum(v.dtype.size * n for v, n in zip(model.variables, sizes, strict=True)),
    )
    yield (
        "file_bytes",
        sum(path.stat().st_size for path in model.path.rglob("*") if path.is_file()),
    )
    yield "multiply_adds", graph_counts.multiply_adds(model, side=_side(page))
    size = _manifest(model).get("preprocessing", {}).get("image_size")
    if size is not None:
        yield "image_size", size


def _numbers_of_other_model(model: model_under_test.ModelUnderTest) -> set[int]:
    """Returns the numbers of the other model of the pair, which a page may state too.

    Without that model, returns the numbers that the page states for it: a run of the
    suite on that model checks them.
    """
    (kind,) = set(clauses.KINDS) - {model.kind}
    page = statements.Page(model.page or {}, kind)
    if model.pair is not None:
        return {number for _, number in _computed(model.pair, page)}
    with _consistent_page():
        facts = [page.fact(name) for name in statements.FACTS]
    return {fact for fact in facts if isinstance(fact, int)}


def _side(page: statements.Page) -> int:
    with _consistent_page():
        side = page.fact("image_size")
    if side is None:
        raise verdict.NotApplicable("the page states no image size")
    return side


def _page(model: model_under_test.ModelUnderTest) -> statements.Page:
    if model.page is None:
        raise verdict.NotApplicable("no documentation page was given")
    return statements.Page(model.page, model.kind)


def _stated(page: statements.Page, name: str) -> Any:
    """Returns a fact of the page.

    Raises:
      verdict.Violation: the page lacks the fact, or contradicts itself.
    """
    with _consistent_page():
        fact = page.fact(name)
    label = statements.FACTS[name].label
    _expect(f"a table row {label!r} with a value", fact is not None, "none")
    return fact


@contextlib.contextmanager
def _consistent_page() -> Iterator[None]:
    """Raises a violation if the page contradicts itself."""
    try:
        yield
    except statements.DisagreementError as error:
        _expect("a JSON block that agrees with the text", False, str(error))


def _manifest(model: model_under_test.ModelUnderTest) -> Mapping[str, Any]:
    """Returns the manifest of the model; empty if it is missing or unreadable."""
    try:
        path = model.path / documents.MANIFEST
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _expect(expected: str, holds: bool, observed: str) -> None:
    if not holds:
        raise verdict.Violation(
            expected=f"in the page: {expected}", observed=observed, mend=_FIX
        )


def _equal(value: Any, stated: Any) -> bool:
    """Compares a default with the stated one; numbers in a model are float32."""
    if isinstance(value, int | float) and isinstance(stated, float):
        return math.isclose(value, stated, rel_tol=1e-6)
    return str(value) == str(stated)


def _span(ends: Any) -> str:
    low, high = ends
    return f"{low} or more" if high is None else f"{low} to {high}"


def _yes_or_no(value: Any) -> str:
    return "yes" if value else "no"

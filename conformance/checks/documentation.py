"""Group D: compares a documentation page with the model that it describes.

`conformance.statements` specifies the format of a page.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from conformance import (
    clauses,
    documents,
    graph_counts,
    model_under_test,
    output_checks,
    report,
    statements,
    traces,
    verdict,
)

_NOT_HYPERPARAMETERS = ("training", "return_endpoints")
_FIX = "Correct the page. A page that is generated from the model stays correct."
_RANDOM = "random"


def d01_states_ranges(model: model_under_test.ModelUnderTest) -> str:
    """Calls the model at both ends of the stated ranges of batch, height and width.

    If the model's manifest has a range of heights or widths, the page must state the
    same range.
    """
    page = _page(model)
    batch, height, width = (_stated(page, n) for n in ("batch", "height", "width"))
    manifest_input = _manifest(model).get("input", {})
    for name, stated in (("height", height), ("width", width)):
        declared = manifest_input.get(f"{name}_range", stated)
        expected = f"the manifest's {name} range, {_span(declared)}"
        _expect(expected, stated == declared, _span(stated))
    base = model.size
    # The upper end of a range is None if there is no limit.
    trials = [(batch[0], base), (batch[1] or batch[0] + 1, base)]
    for size in zip(height, width, strict=True):
        if None not in size:
            trials += [(1, size), (1, (size[0], base[1])), (1, (base[0], size[1]))]
    for count, size in dict.fromkeys(trials):
        expected = f"{count} images of {size[0]}x{size[1]} pixels to give {count} rows "
        expected += "of output, as the page states"
        with verdict.expecting(expected, fix=_FIX):
            shape = model.infer(model.images(count, size=size)).shape
        if shape[0] != count:
            raise verdict.Violation(
                expected=expected, observed=f"an output of shape {shape}", fix=_FIX
            )
    return f"batch {_span(batch)}, height {_span(height)}, width {_span(width)}"


def d02_states_outputs(model: model_under_test.ModelUnderTest) -> str:
    """Checks that the page states the output size and a classifier's class index.

    The class index must be an asset of the model. `d05_numbers_are_right` checks the
    output size.
    """
    page = _page(model)
    if model.kind == clauses.FEATURE_VECTOR:
        return f"num_features {_stated(page, 'num_features')}"
    count = _stated(page, "num_classes")
    class_index = _stated(page, "class_index")
    names = [path.relative_to(model.path).as_posix() for path in model.assets]
    _expect(
        f"an asset as the class index (the model has {', '.join(names) or 'none'})",
        any(name in class_index for name in names),
        class_index,
    )
    return f"num_classes {count}, {class_index}, {_stated(page, 'scores')}"


def d03_states_arguments(model: model_under_test.ModelUnderTest) -> str:
    """Checks the statement on fine-tuning, and the list of a call's arguments.

    A model can be fine-tuned if it lists trainable variables. The page must state
    dtype, default and effect of each argument. The checks of R09 and D05 compare these
    with the model.
    """
    page = _page(model)
    stated = _stated(page, "fine_tunable")
    is_tunable = bool(model.trainable_variables)
    answer = _yes_or_no(is_tunable)
    _expect(
        f"the row 'fine-tunable' to say {answer}",
        stated == is_tunable,
        _yes_or_no(stated),
    )
    arguments = {
        parameter.name
        for parameter in (traces.parameters(model.call)[1:] if model.call else ())
        if parameter.name not in _NOT_HYPERPARAMETERS
    }
    with _disagreement_violates():
        documented = page.arguments()
    if different := sorted(arguments ^ documented.keys()):
        name = different[0]
        problem = "no such argument" if name in documented else "not documented"
        _fail(f"the arguments {', '.join(sorted(arguments))}", f"{name}: {problem}")
    for name, entry in documented.items():
        for key in ("dtype", "default", "effect"):
            _expect(f"the {key} of {name}", entry[key] not in (None, ""), "none")
    return f"fine-tunable {answer}; {', '.join(documented) or 'no arguments'}"


def d04_states_origins(model: model_under_test.ModelUnderTest) -> str:
    """Checks that the page states paper, data, licence, counts and weights.

    If the model has a manifest, its weights and licence must be those that the page
    states. If the weights are random, the title of the page or the line after it must
    say so. `d05_numbers_are_right` checks the counts.
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
            "the title or the line after it to say that the weights are random",
            _RANDOM in page.first_lines.lower(),
            page.first_lines,
        )
    return f"{facts['paper']}; {facts['data']}; {facts['license']}; {facts['weights']}"


def d05_numbers_are_right(model: model_under_test.ModelUnderTest) -> str:
    """Compares numbers of the page with numbers computed from the model.

    The page's numbers are those in table rows whose label is in `statements.FACTS`, the
    defaults of arguments and the shapes of endpoints. Any other number that is written
    with digit groups, such as 1,234, must equal one of the computed numbers.
    """
    page = _page(model)
    computed = dict(_computed(model, page))
    checked = 0
    for name, number in computed.items():
        with _disagreement_violates():
            stated = page.fact(name)
        if stated is not None:
            label = statements.FACTS[name].label
            _expect(f"{label} {number}", stated == number, str(stated))
            checked += 1
    with _disagreement_violates():
        arguments, endpoints = page.arguments(), page.endpoints()
    defaults = {p.name: p.default for p in traces.parameters(model.call)[1:]}
    for name, entry in arguments.items():
        value, stated = defaults.get(name), entry["default"]
        _expect(f"the default {value} of {name}", _equal(value, stated), str(stated))
    shapes = graph_counts.endpoints(model, side=_side(page)) if endpoints else {}
    for name, shape in endpoints.items():
        if name not in shapes:
            _fail("only endpoints that the model has", name)
        _expect(f"{name} {shapes[name]}", shapes[name] == shape, str(shape))
    recomputed = {*computed.values(), *_numbers_of_other_model(model)}
    for number in page.grouped:
        _expect("numbers that match the model", number in recomputed, f"{number:,}")
    return f"{checked + len(arguments) + len(endpoints)} numbers recomputed"


def _computed(
    model: model_under_test.ModelUnderTest, page: statements.Page
) -> Iterator[tuple[str, int]]:
    """Yields numbers computed from the model, each with its name in `FACTS`."""
    sizes = [math.prod(v.shape) for v in model.variables]
    is_classifier = model.kind == clauses.CLASSIFICATION
    name = "num_classes" if is_classifier else "num_features"
    yield name, output_checks.check_static_columns(model, dimension=name)
    yield "params", sum(sizes)
    yield "trainable", sum(math.prod(v.shape) for v in model.trainable_variables)
    yield (
        "variable_bytes",
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
    if model.other_model is not None:
        return {number for _, number in _computed(model.other_model, page)}
    with _disagreement_violates():
        facts = [page.fact(name) for name in statements.FACTS]
    return {fact for fact in facts if isinstance(fact, int)}


def _side(page: statements.Page) -> int:
    with _disagreement_violates():
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
    with _disagreement_violates():
        fact = page.fact(name)
    label = statements.FACTS[name].label
    _expect(f"a table row {label!r} with a value", fact is not None, "none")
    return fact


@contextlib.contextmanager
def _disagreement_violates() -> Iterator[None]:
    """Context manager that turns a `DisagreementError` of the page into a violation."""
    try:
        yield
    except statements.DisagreementError as error:
        _fail("a JSON block that agrees with the text", str(error))


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
        _fail(expected, observed)


def _fail(expected: str, observed: str) -> NoReturn:
    raise verdict.Violation(
        expected=f"in the page: {expected}", observed=observed, fix=_FIX
    )


def _equal(value: Any, stated: Any) -> bool:
    """Compares a default with the stated one; numbers in a model are float32."""
    if isinstance(value, int | float) and isinstance(stated, float):
        return math.isclose(value, stated, rel_tol=1e-6)
    return str(value) == str(stated)


def _span(ends: Any) -> str:
    return report.range_text(*ends)


def _yes_or_no(value: Any) -> str:
    return "yes" if value else "no"

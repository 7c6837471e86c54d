"""Group D: what a page of documentation says of a model, held against the model.

How a page says it stands in `conformance.statements`.
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

_FLAGS = ("training", "return_endpoints")
_MEND = "Write the page from the model's own record, and again when that changes."
_RANDOM = "random"


def d01_states_ranges(model: model_under_test.ModelUnderTest) -> str:
    """Reads batch, height and width, and calls the model at both ends of each.

    A range must be the one in the model's own record, if that has any.
    """
    page = _page(model)
    batch, height, width = (_stated(page, n) for n in ("batch", "height", "width"))
    own = _record(model).get("input", {})
    for name, stated in (("height", height), ("width", width)):
        declared = own.get(f"{name}_range", stated)
        _expect(f"the {name}s {_span(declared)}", stated == declared, _span(stated))
    base = model.size
    trials = [(batch[0], base), (batch[1] or batch[0] + 1, base)]
    for low_or_high in (0, 1):
        ends = (height[low_or_high], width[low_or_high])
        if None not in ends:
            trials += [(1, ends), (1, (ends[0], base[1])), (1, (base[0], ends[1]))]
    for number, size in dict.fromkeys(trials):
        with verdict.expecting(
            f"{number} images of {size[0]}x{size[1]} pixels to work, as the page says",
            mend=_MEND,
        ):
            output = model.infer(model.images(number, size=size))
        _expect(f"{number} rows", output.shape[0] == number, str(output.shape))
    return f"batch {_span(batch)}, height {_span(height)}, width {_span(width)}"


def d02_states_outputs(model: model_under_test.ModelUnderTest) -> str:
    """Reads how many features or classes, and of those what defines them."""
    page = _page(model)
    if model.kind == clauses.FEATURE_VECTOR:
        return f"num_features {_stated(page, 'num_features')}"
    count = _stated(page, "num_classes")
    file = _stated(page, "class_index")
    names = [path.relative_to(model.path).as_posix() for path in model.assets]
    _expect(
        f"the class index among the assets {', '.join(names) or 'of which are none'}",
        any(name in file for name in names),
        file,
    )
    return f"num_classes {count}, {file}, {_stated(page, 'scores')}"


def d03_states_arguments(model: model_under_test.ModelUnderTest) -> str:
    """Reads whether it can be fine-tuned, and what of each argument of a call."""
    page = _page(model)
    stated = _stated(page, "fine_tunable")
    really = bool(model.trainable_variables)
    _expect(f"fine-tunable {_yes(really)}", stated == really, _yes(stated))
    taken = {
        parameter.name
        for parameter in (traces.parameters(model.call)[1:] if model.call else ())
        if parameter.name not in _FLAGS
    }
    with _agreement():
        documented = page.arguments()
    if different := sorted(taken ^ documented.keys()):
        name = different[0]
        problem = "no such argument" if name in documented else "nothing of it"
        _expect(
            f"the arguments {', '.join(sorted(taken))}", False, f"{name}: {problem}"
        )
    for name, about in documented.items():
        for key in ("dtype", "default", "effect"):
            _expect(f"the {key} of {name}", about[key] not in (None, ""), "none")
    return f"fine-tunable {_yes(really)}; {', '.join(documented) or 'no arguments'}"


def d04_states_origins(model: model_under_test.ModelUnderTest) -> str:
    """Reads paper, data, licence, sizes and weights; random ones in the first line."""
    page = _page(model)
    found = {
        name: _stated(page, name)
        for name in ("paper", "data", "license", "params", "multiply_adds", "weights")
    }
    record = _record(model)
    weights = record.get("weights", {}).get("name", found["weights"])
    _expect(f"the weights {weights}", weights in found["weights"], found["weights"])
    if license_name := record.get("license"):
        stated = found["license"]
        _expect(f"the licence {license_name}", license_name in stated, stated)
    if _RANDOM in found["weights"].lower():
        _expect(
            "the first line to say that the weights are random",
            _RANDOM in page.first.lower(),
            page.first,
        )
    return f"{found['paper']}; {found['data']}; {found['license']}; {found['weights']}"


def d05_numbers_are_right(model: model_under_test.ModelUnderTest) -> str:
    """Computes each number of the page again.

    These are numbers beside the labels, defaults of arguments, shapes of endpoints.
    Any other number with groups of digits must be one of them.
    """
    page = _page(model)
    computed = dict(_computed(model, page))
    judged = 0
    for name, number in computed.items():
        with _agreement():
            stated = page.fact(name)
        if stated is not None:
            label = statements.FACTS[name].label
            _expect(f"{label} {number}", stated == number, str(stated))
            judged += 1
    with _agreement():
        arguments, endpoints = page.arguments(), page.endpoints()
    defaults = {p.name: p.default for p in traces.parameters(model.call)[1:]}
    for name, about in arguments.items():
        value, stated = defaults.get(name), about["default"]
        _expect(f"the default {value} of {name}", _equal(value, stated), str(stated))
    shapes = graph_counts.endpoints(model, side=_side(page)) if endpoints else {}
    for name, shape in endpoints.items():
        _expect(f"{name} {shapes.get(name)}", shapes.get(name) == shape, str(shape))
    known = {*computed.values(), *_others(model)}
    for other in page.grouped:
        _expect("numbers that are the model's", other in known, f"{other:,}")
    return f"{judged + len(arguments) + len(endpoints)} numbers computed again"


def _computed(
    model: model_under_test.ModelUnderTest, page: statements.Page
) -> Iterator[tuple[str, int]]:
    """What the numbers beside the labels must be."""
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
    size = _record(model).get("preprocessing", {}).get("image_size")
    if size is not None:
        yield "image_size", size


def _others(model: model_under_test.ModelUnderTest) -> set[int]:
    """The numbers of the other half, of which a page may speak too.

    Where that was not given they are what the page says: to be judged with that half.
    """
    (kind,) = set(clauses.KINDS) - {model.kind}
    page = statements.Page(model.page or {}, kind)
    if model.pair is not None:
        return {number for _, number in _computed(model.pair, page)}
    with _agreement():
        found = [page.fact(name) for name in statements.FACTS]
    return {number for number in found if isinstance(number, int)}


def _side(page: statements.Page) -> int:
    with _agreement():
        side = page.fact("image_size")
    if side is None:
        raise verdict.NotApplicable("the page says no image size to count for")
    return side


def _page(model: model_under_test.ModelUnderTest) -> statements.Page:
    if model.page is None:
        raise verdict.NotApplicable("no page of documentation was given")
    return statements.Page(model.page, model.kind)


def _stated(page: statements.Page, name: str) -> Any:
    """What the page says; ends the check where it says nothing, or two things."""
    with _agreement():
        found = page.fact(name)
    label = statements.FACTS[name].label
    _expect(f"a table's row {label!r}", found is not None, "none that says it")
    return found


@contextlib.contextmanager
def _agreement() -> Iterator[None]:
    """Turns a page that contradicts itself into a clause that fails."""
    try:
        yield
    except statements.DisagreementError as error:
        _expect("the block for programs to say what the text says", False, str(error))


def _record(model: model_under_test.ModelUnderTest) -> Mapping[str, Any]:
    """The record inside the model; empty where there is none that can be read."""
    try:
        path = model.path / documents.IN_MODEL
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _expect(expected: str, holds: bool, observed: str) -> None:
    if not holds:
        raise verdict.Violation(
            expected=f"in the page {expected}", observed=observed, mend=_MEND
        )


def _equal(value: Any, stated: Any) -> bool:
    """Whether a page says a default; numbers are float32 in a model."""
    if isinstance(value, int | float) and isinstance(stated, float):
        return math.isclose(value, stated, rel_tol=1e-6)
    return str(value) == str(stated)


def _span(ends: Any) -> str:
    low, high = ends
    return f"{low} and more" if high is None else f"{low} to {high}"


def _yes(value: Any) -> str:
    return "yes" if value else "no"

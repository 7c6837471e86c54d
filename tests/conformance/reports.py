"""Reports for tests: a large model with faults and hostile text, and small ones."""

from __future__ import annotations

from conformance import clauses, report

PATH = (
    "/srv/models/exports/2031-05-17T09-30-00/mobilenet_v4_hybrid_medium_with_a_long_"
    "variant_name_100_448/feature_vector/1"
)
HOSTILE = (
    "<script>document.title = 'taken'</script>\x1b[31m\u202egnp.exe\x00 & 'x' \"y\""
)


def violation(
    clause: str, *, expected: str, observed: str, fix: str
) -> tuple[str, str]:
    return "fail", (
        f"{clause} {PATH}: expected {expected}; observed {observed}. To fix: {fix}"
    )


# Status and message of clauses that do not simply pass.
_FINDINGS = {
    "R04": violation(
        "R04",
        expected="all 518 captured variables in root.variables",
        observed="2 missing: stage_4_block_11_multi_query_attention_key_downsampling/"
        "norm/moving_mean, stage_4_block_11_multi_query_attention_key_downsampling/"
        "norm/moving_variance",
        fix="Assign to root.variables every variable that __call__ reads, those of "
        "layers in layers included.",
    ),
    "R06": (
        "fail",
        f"R06 {PATH}: raised InvalidArgumentError: Graph execution error: Detected at "
        "node regularizer/mul defined at (most recent call last): slice index 0 of "
        "dimension 0 out of bounds. [Op:__inference_signature_wrapper_104857]",
    ),
    "F03": (
        "fail",
        "F03 https://models.example/pub/mobilenet_v4/feature_vector/1: expected no "
        "dropout on the output with training=True; observed a rate of 0.2; observed "
        f"beside {HOSTILE}. To fix: Leave dropout to the head.",
    ),
    "S02": ("warn", f"a message of\nits own form: {HOSTILE}"),
    "P01": ("not_applicable", "no pair was given to hold it against"),
    "P02": ("not_applicable", "no pair was given to hold it against"),
    **dict.fromkeys(
        ("C01", "C02", "C03"),
        (
            "not_applicable",
            "applies to classification models; this is a feature_vector model",
        ),
    ),
    "R01": ("pass", "loaded; 2 functions of 2 signatures"),
    "R03": ("pass", "images: float32 [None, None, None, 3]"),
    "R07": ("pass", "training=False is the default, and equal to bits"),
    "R10": ("pass", "training=True changes 104 of 104 moving statistics"),
    "R11": ("pass", "gradients reach 314 trainable variables"),
    "I02": ("pass", "1, 2, 3, 7, 32; batch 0: an empty output"),
    "I05": ("pass", "raises for rank 3, rank 5, 1 channels, 4 channels, bfloat16"),
    "I03": ("pass", "sizes 448x672, 32x32, 1024x1024, 672x448, 449x451, 528x528"),
}
_PASSED = "as it should be: 518 variables, 2 traces"
_SECONDS = {"R01": 11.412, "R11": 24.06, "I03": 18.733, "I02": 7.25, "R08": 3.9}


def result(
    clause: str, status: str = "pass", message: str = _PASSED
) -> report.ClauseResult:
    seconds = _SECONDS.get(clause, 0.137 * (sum(map(ord, clause)) % 5))
    return report.ClauseResult(
        id=clause, status=status, message=message, seconds=seconds
    )


FAULTY = report.Report(
    path=PATH,
    kind="feature_vector",
    clauses=(
        *(
            result(clause.id, *_FINDINGS.get(clause.id, ()))
            for clause in clauses.CLAUSES
        ),
        result("Z99", "not_applicable", "of a later version of the suite"),
    ),
    documented={"height_range": (32, 2048), "width_range": (None, 1024)},
    measured=report.MeasuredSizes(
        base=(448, 448),
        sides={
            "height": report.SizeRange(
                smallest=32,
                largest=1440,
                step=32,
                stopped="1536: ResourceExhaustedError: OOM when allocating tensor with "
                "shape[1,768,768,96] and type float on /job:localhost/device:CPU:0",
            ),
            "width": report.SizeRange(
                smallest=1, largest=4096, step=1, stopped="no time"
            ),
            "square": report.SizeRange(
                smallest=32, largest=32, step=1, stopped=HOSTILE
            ),
        },
        batch_sizes=(1, 2, 3, 7, 32, 64, 128, 256),
        stopped="out of time after 120 s",
    ),
    seconds=131.4,
    versions={"python": "3.12.4", "tensorflow": "2.21.0", "keras": "3.15.1"},
)

CLEAN = report.Report(
    path="exports/m/classification/1",
    kind="classification",
    clauses=(result("R01"), result("C02")),
    seconds=11.9,
)

EMPTY = report.Report(path="m", kind="unknown", clauses=())

"""Holds any image SavedModel against the clauses that such a model must meet.

`conformance.suite.check` runs the clauses of `conformance.clauses`, one function each
under `conformance.checks`. Importing this package, or `conformance.report`, does not
import TensorFlow; importing the suite does.
"""

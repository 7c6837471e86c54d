"""Conformance suite for image SavedModels.

`conformance.suite.check` runs the suite on a SavedModel. The clauses are listed in
`conformance.clauses`, and each has one check function in `conformance.checks`.
Importing this package, `conformance.report` or `conformance.suite` does not import
TensorFlow: the checks run in separate processes.
"""

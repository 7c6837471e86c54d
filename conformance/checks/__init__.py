"""One check function for each clause, except T05 and group K (see `clients`).

A check takes a `model_under_test.ModelUnderTest`. If the clause holds, it returns a
short summary of the observed values. It raises `verdict.Violation` if the clause does
not hold, and `verdict.NotApplicable` if the clause does not apply to the model. Any
other exception also counts as a failure of the clause.
"""

"""One function per clause, in a module per group of clauses.

A check takes a `model_under_test.ModelUnderTest`. If the clause holds, it returns a
few words on what it saw. It raises `verdict.Violation` if the clause does not hold, and
`verdict.NotApplicable` if there is nothing to judge. Any other exception counts as a
failure of the clause, too.
"""

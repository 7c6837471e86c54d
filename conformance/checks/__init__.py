"""One function per clause, in a module per group of clauses.

A check takes a `model_under_test.ModelUnderTest` and returns, in a few words, what it saw
of a clause that holds. It raises `verdict.Broken` where the clause does not hold and
`verdict.NotApplicable` where there is nothing to judge. Any other exception counts as
a failure of the clause too.
"""

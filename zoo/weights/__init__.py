"""Values for the variables: random, public by name, or from a file."""

"""Small helpers that every room uses: atomic writing, text for terminals, hashes."""

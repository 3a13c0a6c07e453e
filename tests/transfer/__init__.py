"""A hub as a file: out of one database, into another, and back."""

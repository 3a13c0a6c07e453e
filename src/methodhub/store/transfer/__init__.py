"""A hub's rows on their way from one database to another, as lines of text. Knows what no column means."""

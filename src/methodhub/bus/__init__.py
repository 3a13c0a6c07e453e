"""The bus finds who holds a target: within one process here, across many elsewhere."""

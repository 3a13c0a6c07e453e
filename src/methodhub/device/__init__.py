"""The device-facing edge: one connection class per protocol over a byte stream. Knows no HTTP and no SQL."""

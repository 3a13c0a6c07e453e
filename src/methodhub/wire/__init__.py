"""Open standards, pure: bytes in, events out, time as an argument. Knows no event loop, nothing of ours."""

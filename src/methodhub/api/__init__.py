"""The service-facing edge: HTTP in, authorization per route, errors rendered. Knows no device protocol."""

"""Examples of the Python API, which run as tests; docs/api.md shows them."""

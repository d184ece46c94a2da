"""Floor 2, formats: bytes to values and back, one module per format; no I/O."""

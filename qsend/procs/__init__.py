"""Floor 4, processes: one module each, wiring only; none imports another."""

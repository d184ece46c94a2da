"""Floor 1, decisions: values in, values out; no I/O, no clock, no sockets."""

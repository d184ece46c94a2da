"""Floor 5, commands: one module per program an operator or a script calls."""

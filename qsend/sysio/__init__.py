"""Floor 3, the world: thin modules that touch files, sockets, processes, time."""

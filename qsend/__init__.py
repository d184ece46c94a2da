"""qsend: a mail queue manager on qmail's queue, wire and controls."""

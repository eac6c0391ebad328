"""One module per command of ``mixc``; each imports what it needs when it runs."""

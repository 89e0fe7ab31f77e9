"""Many answers at once: `gather` for futures, `map` for blocking functions, and the threads of a map."""

"""Relations between entities from a few examples each, and what earlier relations taught."""

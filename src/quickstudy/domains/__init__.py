"""One folder a domain, with the same file names in each."""

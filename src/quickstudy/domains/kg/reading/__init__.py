"""Documents and labelled examples, in the formats that people have them in."""

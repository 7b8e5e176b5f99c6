"""Files as people have them: text in bounded pieces, tables row by row."""

"""Small servers as people write them, each a program of its own."""

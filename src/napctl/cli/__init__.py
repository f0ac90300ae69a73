"""The command line: one module per command. Arguments in; values out as a table, or as JSON."""

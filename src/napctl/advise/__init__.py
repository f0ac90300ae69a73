"""Advice: from a Machine and a Window to Findings and Plans. Pure: nothing is read here and nothing changed."""

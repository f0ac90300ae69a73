"""Changing settings so that there is always a way back: the journal, the transaction, the recovery."""

"""The figures of the paper's table, measured on clips; `hellomeme evaluate` runs it."""

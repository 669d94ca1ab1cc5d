"""Commands for the store as a whole: made, measured, checked, kept small, and opened by passwords."""

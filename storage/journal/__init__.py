"""The journal in memory: what was answered and is not in the log yet, in files that outlive the process."""

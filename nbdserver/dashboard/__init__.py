"""The dashboard: one page about a running server, for people who ask whether their data is safe, and how it does."""

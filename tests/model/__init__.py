"""The commit protocol as a model, checked in every state within small bounds."""

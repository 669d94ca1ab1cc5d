"""Commands about commands: the configuration file, and completion in a shell."""

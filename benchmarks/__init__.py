"""What is claimed, and how to see it. Each module states its protocol and is a command."""

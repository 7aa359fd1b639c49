"""Who is told when something waits for a person: incidents, and the services that carry messages."""

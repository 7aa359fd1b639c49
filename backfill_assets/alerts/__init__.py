"""Alerts about problems that need a person: incidents, and the services that carry the messages."""

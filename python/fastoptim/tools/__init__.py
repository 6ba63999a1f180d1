"""Tools around training: checks, searches, records."""

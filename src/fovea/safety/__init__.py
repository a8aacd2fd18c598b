"""Configurations and files from elsewhere run no code; records hold no secrets."""

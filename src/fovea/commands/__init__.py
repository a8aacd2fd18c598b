"""One module a command: ``run(cfg, overrides)`` is what ``python src/<command>.py`` does."""

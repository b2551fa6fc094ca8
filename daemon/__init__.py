# python-daemon owns this top-level name too and pip overwrites silently: `daemon.cli.main` compares this mark before it starts.
__distribution__ = "midwatch"

"""The outside world: typed, secret-safe configuration with two or three coarse verbs each."""

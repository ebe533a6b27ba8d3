"""What the user asked for: amibuild.toml on disk -> Recipe, with every mistake reported at once."""

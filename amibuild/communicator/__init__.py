"""How scripts get onto a machine, and their output back."""

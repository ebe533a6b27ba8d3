"""amibuild: golden AMIs from a short recipe. Start reading at `bake.py`."""

__version__ = "0.1.0"

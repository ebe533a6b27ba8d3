"""Tries to get out of a service's sandbox, from inside. It runs there: see __main__.py."""

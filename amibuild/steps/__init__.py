"""The steps of a bake: plain functions, typed arguments in, one frozen result out."""

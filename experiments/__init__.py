"""Studies that use seer_jax: each file runs one, or draws what a run has left. Not installed."""

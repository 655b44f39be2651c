"""The study of docs/decentralised.md: what is run is said in plan.py, before it is."""

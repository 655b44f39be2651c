"""The parts of gpu.py: each module measures one thing (`measure`) and says it in Markdown (`table`)."""

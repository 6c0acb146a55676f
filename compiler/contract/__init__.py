"""All that the compiler and the runtime agree on: manifest, rows, decision, hashing, draws, logic.

The runtime imports nothing else of the compiler. Manifest and decision carry a schema version.
"""

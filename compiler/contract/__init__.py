"""All that the compiler and the runtime agree on: manifest, rows, decision, hashing, draws, logic.

The runtime imports nothing else of the compiler. Every file format here carries a schema version.
"""

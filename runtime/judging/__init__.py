"""Completions to judgements: rubric filled, model asked, replies typed and kept.

One file a provider; everything else is the same for all of them.
"""

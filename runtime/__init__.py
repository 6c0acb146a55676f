"""Executes a Bundle: steps, engine, statistics, decision, report, command line."""

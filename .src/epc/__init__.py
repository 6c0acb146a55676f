"""epc compiles a pre-registration into an experiment and a verdict."""

__version__ = "0.1.0"

"""Text in, Bundle out. No torch, no network, no subprocess, nothing from `epc.runtime`."""

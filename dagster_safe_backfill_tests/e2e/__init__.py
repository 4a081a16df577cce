"""The example project in the real UI, driven by a browser."""

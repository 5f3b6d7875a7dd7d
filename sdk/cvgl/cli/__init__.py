"""The command line tools of the SDK, one module each."""

"""An audience by way of a server that fans out: ours sends each picture once, however many watch (docs/relay.md)."""

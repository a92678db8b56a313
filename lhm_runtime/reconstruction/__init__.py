"""Where avatars come from."""

"""The model room: arrays in, arrays out."""

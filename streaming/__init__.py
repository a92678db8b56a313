"""The server room: sockets, tasks and clocks."""

"""The body: 55 joints, rotations, shape and skinning. numpy only."""

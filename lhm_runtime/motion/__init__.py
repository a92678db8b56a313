"""Motion: recordings, feeds and procedural movement as SmplxPose."""

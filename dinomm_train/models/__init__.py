"""The networks: backbone, projection head, and the pair of student and teacher."""

"""Files: YAML as people mean it, and writes to a disk that refuses for a while."""

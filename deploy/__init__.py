"""What a cluster needs: templates of jobs, manifests and rules."""

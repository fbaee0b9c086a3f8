"""What a developer's machine needs: an environment, a trained model, all processes at once, a demo."""

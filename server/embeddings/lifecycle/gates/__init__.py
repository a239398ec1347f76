"""Gates: what must hold before a candidate is used, each with its figure, its limit, and why it passes or fails."""

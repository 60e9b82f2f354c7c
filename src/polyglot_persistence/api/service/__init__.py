"""The routes of the service itself: health, metrics, live figures and documents."""

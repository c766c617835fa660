"""A small anatomy model and a small X-ray room: who is filmed, what the beam meets on its way, what the detector makes of it."""

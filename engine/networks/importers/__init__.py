"""Published checkpoints: `checkpoint.read_checkpoint` is the door, one file a layout lies behind it."""

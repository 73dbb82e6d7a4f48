//! The decoder, its hand-written backward pass, LoRA, loss, optimizer and checkpoints.

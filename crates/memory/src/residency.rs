//! What of a training step stays in the memory of the device, and for how long.

/// Choices between memory and time. None of them changes a byte of what is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residency {
    /// Layers, counted from the last, whose activations stay from the forward to the backward pass. Of the others only
    /// the input stays, and the rest is computed again.
    pub kept_layers: usize,
    /// Whether the inputs of the other layers wait in the memory of the host.
    pub inputs_on_host: bool,
    /// Whether the unpacked weights of a layer that is computed again stay until its backward pass has used them, rather
    /// than be unpacked twice.
    pub keep_unpacked: bool,
    /// Whether a frozen embedding that is not the head too stays in the memory of the host.
    pub embedding_on_host: bool,
}

impl Residency {
    /// Where memory sets no bounds: the host's, for training on the CPU. With `gradient_checkpointing` no layer is kept.
    pub const fn unbounded(gradient_checkpointing: bool) -> Self {
        let kept_layers = if gradient_checkpointing { 0 } else { usize::MAX };
        Self { kept_layers, inputs_on_host: false, keep_unpacked: true, embedding_on_host: false }
    }
}

//! How much a bundle may ask for before anything is believed.

/// What a reader takes at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// All entries together, unpacked, in bytes.
    pub total_bytes: u64,
    /// The manifest, in bytes: it is held in memory.
    pub manifest_bytes: u64,
    /// How many entries there are beside the manifest.
    pub entries: usize,
    /// The path of one entry, in bytes.
    pub path_bytes: usize,
    /// The memory that decompression needs: 2 to this power, in bytes.
    pub window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 1 << 40,
            manifest_bytes: 128 << 20,
            entries: 500_000,
            path_bytes: 2048,
            window_log: super::writer::WINDOW_LOG,
        }
    }
}

//! Tensors that wait in the memory of the host, the last one in first out.

use std::collections::VecDeque;

use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    shim::page_locked,
    stream::{CopyStream, Mark},
};

/// Tensors that stay on the device behind their push: copies have as long to be through as it takes to compute so many.
const LEAVING: usize = 2;

/// Tensors of a device that wait in the memory of the host, the last one in first out.
///
/// Copies run beside what the device computes, and the host waits for none. The next tensor to be asked for is on its way
/// back before it is. On the CPU the tensors just wait.
#[derive(Debug)]
pub struct HostStack {
    /// From the first one pushed.
    entries: Vec<Entry>,
    /// Page-locked memory, by the place in `entries`; it stays for the next pass.
    slots: Vec<Tensor>,
    /// The places of the tensors that are still on the device.
    leaving: VecDeque<usize>,
    /// `None` on the CPU.
    copies: Option<CopyStream>,
}

#[derive(Debug)]
struct Entry {
    size: Vec<i64>,
    kind: Kind,
    /// While it is on the device: on its way to the host or back.
    tensor: Option<Tensor>,
    /// Behind the copy that was begun last.
    copied: Option<Mark>,
}

impl HostStack {
    /// An empty stack of tensors of `device`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(device: Device) -> Result<Self, Error> {
        let copies = device.is_cuda().then(|| CopyStream::new(device)).transpose()?;
        Ok(Self { entries: Vec::new(), slots: Vec::new(), leaving: VecDeque::new(), copies })
    }

    /// Forgets what was pushed and not popped.
    ///
    /// # Errors
    /// If the device fails.
    pub fn clear(&mut self) -> Result<(), Error> {
        if self.entries.is_empty() {
            return Ok(());
        }
        // Memory that is being copied must not go to others.
        if let Some(copies) = &self.copies {
            copies.wait()?;
        }
        self.leaving.clear();
        self.entries.clear();
        Ok(())
    }

    /// Puts a contiguous tensor on the stack.
    ///
    /// # Errors
    /// If the device fails, or the host has no memory for it.
    pub fn push(&mut self, tensor: Tensor) -> Result<(), Error> {
        let place = self.entries.len();
        let (size, kind) = (tensor.size(), tensor.f_kind()?);
        let copied = match &self.copies {
            None => None,
            Some(copies) => {
                let bytes = (tensor.numel() * kind.elt_size_in_bytes()) as i64;
                let slot = slot(&mut self.slots, place, bytes, copies)?;
                let copied = copies.to_host(&tensor, slot)?;
                self.leaving.push_back(place);
                Some(copied)
            }
        };
        self.entries.push(Entry { size, kind, tensor: Some(tensor), copied });
        while self.leaving.len() > LEAVING {
            let Some(place) = self.leaving.pop_front() else { break };
            self.entries[place].leave()?;
        }
        Ok(())
    }

    /// Takes the last tensor from the stack. `None` if it is empty.
    ///
    /// # Errors
    /// If the device fails.
    pub fn pop(&mut self) -> Result<Option<Tensor>, Error> {
        self.bring(self.entries.len())?;
        let Some(entry) = self.entries.pop() else { return Ok(None) };
        self.leaving.retain(|place| *place < self.entries.len());
        if let Some(copied) = &entry.copied {
            copied.hold_libtorch()?;
        }
        // The one below, while the caller works.
        self.bring(self.entries.len())?;
        Ok(entry.tensor)
    }

    /// Begins to bring back the last of the first `count` tensors, if it is not on the device.
    fn bring(&mut self, count: usize) -> Result<(), Error> {
        let Some(place) = count.checked_sub(1) else { return Ok(()) };
        let (Some(copies), entry) = (&self.copies, &mut self.entries[place]) else { return Ok(()) };
        if entry.tensor.is_none() {
            let tensor = Tensor::f_empty(&entry.size, (entry.kind, copies.device()))?;
            entry.copied = Some(copies.to_device(&self.slots[place], &tensor)?);
            entry.tensor = Some(tensor);
        }
        Ok(())
    }
}

impl Entry {
    /// Gives up the tensor's memory on the device, for what is launched from now on.
    fn leave(&mut self) -> Result<(), Error> {
        if let Some(copied) = self.copied.take() {
            copied.hold_libtorch()?;
        }
        self.tensor = None;
        Ok(())
    }
}

impl Drop for HostStack {
    fn drop(&mut self) {
        // libtorch does not know of the copies, and would give their memory to others.
        if let Some(copies) = &self.copies {
            let _ = copies.wait();
        }
    }
}

/// Page-locked memory of at least `bytes` for the tensor at `place`.
fn slot<'a>(slots: &'a mut Vec<Tensor>, place: usize, bytes: i64, copies: &CopyStream) -> Result<&'a Tensor, Error> {
    if place >= slots.len() {
        slots.push(page_locked(bytes)?);
    } else if slots[place].numel() < bytes as usize {
        // Its last copy may still run. A quarter more: lengths of passes vary.
        copies.wait()?;
        slots[place] = page_locked(bytes + bytes / 4)?;
    }
    Ok(&slots[place])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::{cuda, normal};

    #[test]
    fn tensors_come_back_as_they_were_the_last_one_first() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            let mut stack = HostStack::new(device).unwrap();
            // Other sizes in the second round: the host's memory has to grow.
            for (round, rows) in [(0, 700), (1, 1500), (2, 300)] {
                let expected: Vec<Tensor> = (0..9).map(|seed| normal(&[rows, 1024], round * 10 + seed)).collect();
                for tensor in &expected {
                    stack.push(tensor.to_device(device)).unwrap();
                    // What is computed next takes the memory that became free.
                    let _ = Tensor::full([rows, 1024], 7.0, (Kind::Float, device)) + 1.0;
                }
                for (place, expected) in expected.iter().enumerate().rev() {
                    let found = stack.pop().unwrap().unwrap();
                    let _ = Tensor::full([rows, 1024], 8.0, (Kind::Float, device)) + 1.0;
                    assert!(found.to_device(Device::Cpu).equal(expected), "tensor {place} of round {round}");
                }
                assert!(stack.pop().unwrap().is_none());
            }
        }
    }

    #[test]
    fn a_cleared_stack_is_empty() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            let mut stack = HostStack::new(device).unwrap();
            for seed in 0..5 {
                stack.push(normal(&[64, 64], seed).to_device(device)).unwrap();
            }
            stack.clear().unwrap();
            assert!(stack.pop().unwrap().is_none());
        }
    }
}

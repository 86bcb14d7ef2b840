//! Numbered places of the datapath's arrays, to be taken and given back.

use std::collections::BTreeMap;

/// Things in numbered slots.
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    limit: u32,
}

impl<T> Slots<T> {
    /// At most `limit` things.
    pub fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.limit as usize
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn insert(&mut self, value: T) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(value);
            return Some(slot);
        }
        if self.slots.len() >= self.limit as usize {
            return None;
        }
        self.slots.push(Some(value));
        Some(self.slots.len() as u32 - 1)
    }

    pub fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub fn free(&mut self, slot: u32) -> Option<T> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(value)
    }
}

/// A run of places: the first, and the size class (a power of two).
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub start: u32,
    class: u32,
}

/// Memory for runs whose sizes are powers of two.
pub(super) struct Space {
    next: u32,
    end: u32,
    free: [Vec<u32>; 32],
}

impl Space {
    /// The places from `start` on, up to the one before `end`.
    pub fn new(start: u32, end: u32) -> Self {
        Self { next: start, end, free: std::array::from_fn(|_| Vec::new()) }
    }

    pub fn take(&mut self, len: usize) -> Option<Block> {
        let size = u32::try_from(len).ok()?.checked_next_power_of_two()?;
        let class = size.trailing_zeros();
        if let Some(start) = self.free[class as usize].pop() {
            return Some(Block { start, class });
        }
        let start = self.next;
        self.next = start.checked_add(size).filter(|&next| next <= self.end)?;
        Some(Block { start, class })
    }

    pub fn free(&mut self, block: Block) {
        self.free[block.class as usize].push(block.start);
    }
}

/// A run of places of any length.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub start: u32,
    len: u32,
}

impl Run {
    /// Whether it has room for so many.
    pub fn holds(self, len: usize) -> bool {
        len <= self.len as usize
    }
}

/// Memory for a few runs of any length. What is given back joins what is free beside it.
pub(super) struct Runs {
    /// What is free: where it begins, and its length.
    free: BTreeMap<u32, u32>,
}

impl Runs {
    /// The places from `start` on, up to the one before `end`.
    pub fn new(start: u32, end: u32) -> Self {
        Self { free: BTreeMap::from([(start, end.saturating_sub(start))]) }
    }

    pub fn take(&mut self, len: usize) -> Option<Run> {
        let len = u32::try_from(len).ok()?;
        let (&start, &room) = self.free.iter().find(|&(_, &room)| room >= len)?;
        self.free.remove(&start);
        if room > len {
            self.free.insert(start + len, room - len);
        }
        Some(Run { start, len })
    }

    pub fn free(&mut self, mut run: Run) {
        if let Some(behind) = self.free.remove(&(run.start + run.len)) {
            run.len += behind;
        }
        if let Some((&start, before)) = self.free.range_mut(..run.start).next_back()
            && start + *before == run.start
        {
            *before += run.len;
            return;
        }
        self.free.insert(run.start, run.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_again_in_whatever_order_they_are_given_back() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut runs = Runs::new(1, 10);
            let taken = [2, 3, 4].map(|len| runs.take(len).unwrap());
            assert_eq!(taken.map(|run| run.start), [1, 3, 6]);
            assert!(runs.take(1).is_none());
            order.into_iter().for_each(|which| runs.free(taken[which]));
            assert_eq!(runs.free, BTreeMap::from([(1, 9)]), "{order:?}");
        }
    }
}

//! Matches, packed: a [`Match`] is 496 bytes, of which most flows use two to six words.

use std::collections::HashMap;
use std::sync::Arc;

use ofctl::flow::Match;
use switchd_ebpf::key::{Key, WORDS};

/// A mask, shared by all flows that have it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shape {
    mask: Key,
    /// Bit `i`: the mask uses word `i`.
    used: u32,
}

const _: () = assert!(WORDS <= u32::BITS as usize);

impl Shape {
    fn new(mask: Key) -> Self {
        let used = mask
            .words
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0)
            .fold(0, |bits, (i, _)| bits | 1 << i);
        Self { mask, used }
    }

    /// Where a used word lies among the used words.
    fn rank(&self, word: usize) -> usize {
        (self.used & ((1 << word) - 1)).count_ones() as usize
    }

    /// The used words' indices.
    fn words(&self) -> impl Iterator<Item = usize> {
        let used = self.used;
        (0..WORDS).filter(move |i| used & (1 << i) != 0)
    }
}

/// What makes a flow that flow within its table: the match and the priority.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    priority: u16,
    shape: Arc<Shape>,
    /// The key's words at the places that the mask uses.
    words: Box<[u64]>,
}

impl Identity {
    /// The priority.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// The match, unpacked.
    #[must_use]
    pub fn matching(&self) -> Match {
        let mut key = Key::ZERO;
        for (word, value) in self.shape.words().zip(&self.words) {
            key.words[word] = *value;
        }
        Match { key, mask: self.shape.mask }
    }

    /// One word of the mask, and of the key.
    fn word(&self, word: usize) -> (u64, u64) {
        let mask = self.shape.mask.words[word];
        if mask == 0 { (0, 0) } else { (mask, self.words[self.shape.rank(word)]) }
    }
}

/// All masks in use.
#[derive(Debug)]
pub struct Shapes {
    by_mask: HashMap<Key, Arc<Shape>>,
    /// The number of masks at which those that no flow has any more are looked for. It doubles what stayed,
    /// so that the search costs each new mask a constant.
    sweep_at: usize,
}

impl Shapes {
    const FIRST_SWEEP: usize = 64;

    /// No masks.
    pub fn new() -> Self {
        Self { by_mask: HashMap::new(), sweep_at: Self::FIRST_SWEEP }
    }

    /// Packs a match for a look-up.
    pub fn pack(&mut self, matching: &Match, priority: u16) -> Identity {
        let shape = self.intern(matching.mask);
        let words = shape.words().map(|word| matching.key.words[word]).collect();
        Identity { priority, shape, words }
    }

    fn intern(&mut self, mask: Key) -> Arc<Shape> {
        if let Some(shape) = self.by_mask.get(&mask) {
            return Arc::clone(shape);
        }
        if self.by_mask.len() >= self.sweep_at {
            self.by_mask.retain(|_, shape| Arc::strong_count(shape) > 1);
            self.sweep_at = Self::FIRST_SWEEP.max(2 * self.by_mask.len());
        }
        let shape = Arc::new(Shape::new(mask));
        self.by_mask.insert(mask, Arc::clone(&shape));
        shape
    }
}

/// A match, ready to be compared with many flows: only the words that it uses.
#[derive(Debug)]
pub struct Probe {
    words: Vec<(usize, u64, u64)>,
}

impl Probe {
    /// Prepares a match.
    pub fn new(matching: &Match) -> Self {
        let used = |word: &usize| matching.mask.words[*word] != 0;
        let words =
            (0..WORDS).filter(used).map(|i| (i, matching.mask.words[i], matching.key.words[i])).collect();
        Self { words }
    }

    /// Is the flow's match equal to this one, or more specific?
    pub fn covers(&self, flow: &Identity) -> bool {
        self.words.iter().all(|&(word, mask, key)| {
            let (flow_mask, flow_key) = flow.word(word);
            mask & !flow_mask == 0 && (flow_key ^ key) & mask == 0
        })
    }

    /// Is there a packet that both match?
    pub fn overlaps(&self, flow: &Identity) -> bool {
        self.words.iter().all(|&(word, mask, key)| {
            let (flow_mask, flow_key) = flow.word(word);
            (flow_key ^ key) & mask & flow_mask == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Matches that use few bits of few words, so that random ones often meet.
    fn matches() -> impl Strategy<Value = Match> {
        proptest::collection::vec(
            (prop_oneof![Just(0usize), Just(1), Just(WORDS - 1)], 0u64..4, 0u64..4),
            0..4,
        )
        .prop_map(|words| {
            let mut matching = Match::default();
            for (word, mask, key) in words {
                matching.mask.words[word] = mask;
                matching.key.words[word] = key & mask;
            }
            matching
        })
    }

    proptest! {
        #[test]
        fn packing_keeps_the_match(matching in matches(), priority: u16) {
            let identity = Shapes::new().pack(&matching, priority);
            prop_assert_eq!(identity.matching(), matching);
            prop_assert_eq!(identity.priority(), priority);
        }

        #[test]
        fn equal_exactly_when_the_matches_are(a in matches(), b in matches()) {
            let mut shapes = Shapes::new();
            prop_assert_eq!(shapes.pack(&a, 1) == shapes.pack(&b, 1), a == b);
            prop_assert_ne!(shapes.pack(&a, 1), shapes.pack(&a, 2));
        }

        #[test]
        fn covers_and_overlaps_as_defined(a in matches(), b in matches()) {
            let flow = Shapes::new().pack(&b, 0);
            let all = |f: &dyn Fn(usize) -> bool| (0..WORDS).all(f);
            let differ = |i: usize| a.key.words[i] ^ b.key.words[i];
            let covers = all(&|i| a.mask.words[i] & !b.mask.words[i] == 0 && differ(i) & a.mask.words[i] == 0);
            let overlaps = all(&|i| differ(i) & a.mask.words[i] & b.mask.words[i] == 0);
            prop_assert_eq!(Probe::new(&a).covers(&flow), covers);
            prop_assert_eq!(Probe::new(&a).overlaps(&flow), overlaps);
        }
    }

    #[test]
    fn masks_that_no_flow_has_are_forgotten() {
        let mut shapes = Shapes::new();
        let mut kept = Vec::new();
        for i in 1..10_000u64 {
            let mut matching = Match::default();
            matching.mask.words[0] = i;
            let identity = shapes.pack(&matching, 0);
            if i % 1000 == 0 {
                kept.push(identity);
            }
        }
        assert!(shapes.by_mask.len() <= Shapes::FIRST_SWEEP, "{} masks", shapes.by_mask.len());
        assert!(kept.iter().all(|flow| shapes.by_mask.contains_key(&flow.matching().mask)));
    }
}
